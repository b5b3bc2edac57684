"""The configs that come with the package: their names, what their comments say, and copies."""

import difflib
import os
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import yaml

from vit_backbone import UserError, reason_of, shorten

from .names import check_name

LIST_COMMAND = "nnUNetv2_configs_vit --list"
_NOTE = re.compile(r"^# (?P<name>[A-Z]\w+): (?P<said>.*(?:\n#   (?!nnUNet).*)*)", re.M)
_WEIGHTS = re.compile(r"^  checkpoint_path: .*$", re.M)


class ShippedConfig(NamedTuple):
    """A shipped config, and what the comments at its head say.

    Attributes:
        name: as ``--config`` takes it.
        text: the whole file.
        head: the installed head that it needs.
        backbone: such as ``ViT-B/16``.
        weights: ``open`` on the model hub, ``gated`` there, a ``file`` of the user's, or ``none``.
        licence: of the weights.
        size: how many parameters it has, and how many of them train.
        gflop: of a tile's forward pass.
        memory: of a training step.
    """

    name: str
    text: str
    head: str
    backbone: str
    weights: str
    licence: str
    size: str
    gflop: str
    memory: str


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package, sorted."""
    folder = resources.files("nnunet_vit_trainer.config") / "shipped"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def shipped_file(name: str) -> Path:
    """Return the file of a shipped config.

    Args:
        name: one of `shipped_configs`.
    """
    return Path(str(resources.files("nnunet_vit_trainer.config") / "shipped" / f"{name}.yaml"))


def nearest_shipped(name: str) -> str:
    """Say in a few words which shipped config may be meant, or where they are listed.

    Args:
        name: that none of them has, or a file that is not there.
    """
    near = difflib.get_close_matches(shorten(Path(name).stem), shipped_configs(), n=1)
    return f"did you mean {near[0]!r}? ({LIST_COMMAND})" if near else f"see {LIST_COMMAND}"


def read_shipped(name: str) -> ShippedConfig:
    """Read a shipped config as it is, comments included.

    Args:
        name: one of `shipped_configs`.

    Raises:
        UserError: there is none of that name; the nearest is told.
    """
    if name not in shipped_configs():
        raise UserError(f"no shipped config {shorten(name)!r}; {nearest_shipped(name)}")
    text = shipped_file(name).read_text(encoding="utf-8")
    notes = {note["name"].lower(): note["said"] for note in _NOTE.finditer(text)}
    return ShippedConfig(
        name,
        text,
        head=yaml.safe_load(text)["model"]["model_path"],
        backbone=notes["backbone"],
        weights=notes["weights"].partition(":")[0],
        licence=notes["licence"],
        size=notes["size"],
        gflop=notes["gflop"],
        memory=notes["memory"],
    )


def write_config(name: str, file: Path, checkpoint_path: str | None = None) -> None:
    """Copy a shipped config to a file of the user's, which is whole or not there.

    The command in its comments names the copy then.

    Args:
        name: one of `shipped_configs`.
        file: to write; an existing one is never written over.
        checkpoint_path: the user's weight file or folder, to be named in it by its whole path.

    Raises:
        UserError: no such config, a file that is there already or cannot be written or be a
            config by its name, weights that are not there, or a config that takes none.
    """
    text = read_shipped(name).text
    check_name(file)
    if checkpoint_path is not None:
        text = _with_weights(text, name, checkpoint_path)
    # In a comment, which the next line ends.
    told = shlex.quote(str(file) if str(file).isprintable() else file.name)
    text = re.sub(rf"(?<= --config ){re.escape(name)}\b", lambda _: told, text)
    _write_new(file, text)


def _with_weights(text: str, name: str, checkpoint_path: str) -> str:
    # Neither raises, whatever a user's path is.
    weights = os.path.abspath(os.path.expanduser(checkpoint_path))  # noqa: PTH100
    if not (checkpoint_path and os.path.exists(weights)):  # noqa: PTH110
        raise UserError(f"--checkpoint_path {shorten(checkpoint_path, 200)!r} is not there")
    if not _WEIGHTS.search(text):
        raise UserError(f"{name} trains from scratch and takes no --checkpoint_path")
    try:
        weights.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--checkpoint_path {shorten(weights, 200)!r}: no text file can hold this name; "
            "rename the file, or link to it"
        ) from None
    scalar = yaml.safe_dump(weights, default_style='"', allow_unicode=True, width=10**6).strip()
    return _WEIGHTS.sub(lambda _: f"  checkpoint_path: {scalar}", text)


def _write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet: whoever made it meanwhile, it stays."""
    given = shorten(file, 200)
    try:
        with file.open("x", encoding="utf-8") as stream:
            try:
                stream.write(text)
                stream.flush()
            except BaseException:
                file.unlink()
                raise
    except FileExistsError:
        raise UserError(f"{given} is there already and is not written over; name another") from None
    except (OSError, ValueError) as error:  # or a name that no system takes
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(f"{given} cannot be written: {reason}") from error
