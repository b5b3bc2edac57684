"""The manifest of a folder of predictions: which model made the masks, when, and by what.

Every run adds itself to it, at its start and again at its end, so that a killed one shows.
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.checkpoints.model_folder import named_folder
from nnunet_vit_trainer.checkpoints.private_paths import command_without_paths, without_paths
from nnunet_vit_trainer.plans.derive import PLANS_KEY, RECORDED_VERSIONS
from nnunet_vit_trainer.plans.json_file import parse_json
from vit_backbone import UserError, reason_of, sha256_of

try:
    import fcntl
except ImportError:  # Windows: two runs that write at the same moment can lose one
    fcntl = None  # type: ignore[assignment]

SCHEMA_VERSION = 1


def is_kept(folder: Path) -> bool:
    """Say whether a folder of masks has a manifest, which would tell of other masks without us."""
    return any(folder.glob("prediction_manifest*.json"))


class Manifest:
    """What a run of a prediction leaves about itself, beside its masks.

    No path of the machine stands in it: of each only the last part.

    Args:
        folder: of the masks.
        part: this run's share of the cases, (index, number of shares).

    Raises:
        UserError: a file of that name that is no manifest, or cannot be read.
    """

    def __init__(self, folder: Path, part: tuple[int, int] = (0, 1)) -> None:
        index, parts = part
        # Shares are predicted at once, each by a process that knows nothing of the others.
        share = f"_{index}_of_{parts}" if parts > 1 else ""
        self.file = folder / f"prediction_manifest{share}.json"
        self.run: dict[str, Any] = {}
        self._earlier()

    def begin(
        self,
        model: Path,
        plans: dict[str, Any],
        checkpoints: Sequence[Path],
        command: Sequence[str],
        cases: Sequence[str],
    ) -> None:
        """Write down what is about to run.

        Args:
            model: its folder, ``<trainer>__<plans>__<configuration>``.
            plans: its.
            checkpoints: the files that predict, one of each fold.
            command: the words of the command.
            cases: to be predicted, by name.

        Raises:
            UserError: the folder cannot be written to, or a checkpoint cannot be read.
        """
        self.run = {
            "model": {
                "dataset": plans.get("dataset_name"),
                "name": named_folder(model).name,
                "checkpoints": [_described(file) for file in checkpoints],
                "trained_with": plans.get(PLANS_KEY, {}).get("versions"),
            },
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in RECORDED_VERSIONS},
            },
            "command": command_without_paths(command),
            "begun": _now(),
            "ended": None,
            "cases": list(cases),
            "failed": None,
        }
        self._write()

    def end(self, failed: dict[str, str]) -> None:
        """Write down that the run has ended.

        Args:
            failed: why a case has no mask, by its name.

        Raises:
            UserError: the folder cannot be written to.
        """
        self.run |= {"ended": _now(), "failed": without_paths(failed)}
        self._write()

    def _write(self) -> None:
        try:
            with _alone_in(self.file.parent):
                others = [run for run in self._earlier() if run.get("begun") != self.run["begun"]]
                content = {"schema_version": SCHEMA_VERSION, "runs": [*others, self.run]}
                with written_whole(self.file) as unfinished:
                    unfinished.write_text(json.dumps(content, indent=4), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.file} cannot be written: {reason_of(error)}") from error

    def _earlier(self) -> list[dict[str, Any]]:
        try:
            text = self.file.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.file} cannot be read: {reason_of(error)}") from error
        content = parse_json(text, str(self.file))
        runs = content.get("runs")
        known = content.get("schema_version") == SCHEMA_VERSION
        if not known or not isinstance(runs, list) or not all(isinstance(r, dict) for r in runs):
            raise UserError(f"{self.file} is no manifest of this release; move it away")
        return runs


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other run writes its manifest into a folder, where the system can tell.

    The folder itself is locked, so that no lock file lies among the masks; nothing is forked
    meanwhile that would inherit the lock (see `launch.locks`).
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # NFS locks no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _described(checkpoint: Path) -> dict[str, str]:
    try:
        sha256 = sha256_of(checkpoint)
    except OSError as error:
        raise UserError(f"{checkpoint} cannot be read: {reason_of(error)}") from error
    return {"file": f"{checkpoint.parent.name}/{checkpoint.name}", "sha256": sha256}


def _now() -> str:
    return datetime.now(UTC).isoformat()
