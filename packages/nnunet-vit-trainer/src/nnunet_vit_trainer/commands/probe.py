# PYTHON_ARGCOMPLETE_OK
"""The command that tries backbones on a data set before anything is trained."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_vit_trainer.config.input_statistics import NAMES
from nnunet_vit_trainer.config.names import DEFAULT_PLANS
from vit_backbone import UserError

from .arguments import complete_by, complete_dataset
from .errors import one_line_errors
from .parser import CommandParser

if TYPE_CHECKING:
    from nnunet_vit_trainer.probing.run import Probed

_OWN = "own"


@one_line_errors
def probe() -> None:
    """``nnUNetv2_probe_vit``: frozen features of backbones, ranked by probes on a data set."""
    arguments = _parser().parse_args()
    sizes = [_patch_size(word) for word in arguments.patch_size]
    if arguments.tiles < 2:
        raise UserError(f"--tiles {arguments.tiles}: at least 2 are expected")
    if not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed {arguments.seed}: 0 to {2**32 - 1} are expected")
    from nnunet_vit_trainer.plans.datasets import find_dataset
    from nnunet_vit_trainer.probing.taps import layer_indices_of

    for taps in arguments.taps:
        layer_indices_of(taps)
    dataset, _ = find_dataset(arguments.dataset_name_or_id)
    folder = arguments.o or Path(f"probe_{dataset}")
    _check_folder(folder)
    from rich.console import Console

    from nnunet_vit_trainer.probing.candidates import candidates_of
    from nnunet_vit_trainer.probing.run import PICTURE, TABLE, write
    from nnunet_vit_trainer.probing.run import probe as run_probe
    from nnunet_vit_trainer.probing.trials import Choices

    if os.path.lexists(folder / PICTURE) and not os.path.lexists(folder / TABLE):
        raise UserError(f"-o {folder} holds a {PICTURE} of no probe; give another folder")
    norms = list(dict.fromkeys(arguments.input_norm))
    choices = Choices(arguments.taps, sizes, norms, arguments.device, arguments.seed)
    candidates = candidates_of(arguments.backbones)
    with Console(stderr=True).status("reading ...") as status:
        probed = run_probe(
            dataset,
            candidates,
            choices,
            configuration=arguments.c,
            plans_name=arguments.p,
            tiles=arguments.tiles,
            with_random=arguments.random,
            on_progress=status.update,
        )
    files = write(probed, folder)
    if arguments.json:
        print(json.dumps(probed.content(), indent=1))
    else:
        _print(probed, files)
    if not any(row.scores for row in probed.rows):
        raise SystemExit(1)


def _print(probed: "Probed", files: list[Path]) -> None:
    from nnunet_vit_trainer.probing.page import print_probe
    from nnunet_vit_trainer.probing.winner import training_command

    print_probe(probed)
    print(*("", *files), sep="\n")
    config = next((file for file in files if file.suffix == ".yaml"), None)
    if config is not None:
        data = probed.data
        of = (data.dataset, data.configuration, data.plans_name)
        print(f"Train: {training_command(*of, data.first_fold, str(config))}")


def _patch_size(word: str) -> int | None:
    if word == _OWN:
        return None
    if not word.isdecimal() or not 1 <= int(word[:9]) <= 256:
        raise UserError(f"--patch_size {word}: {_OWN}, or 1 to 256 pixels are expected")
    return int(word)


def _check_folder(folder: Path) -> None:
    """Refuse, before the work, what could not be written into after it."""
    if not folder.parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"-o {folder}: a folder, or a name for one in a folder, is expected")
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        raise UserError(f"-o {folder} cannot be written into; give another folder")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_probe_vit",
        example="nnUNetv2_probe_vit 42 --backbones WEIGHTS_FOLDER dinov2:small --random",
        about="Try backbones on a data set before a night of training: frozen features of the "
        "training cases, a linear probe and nearest neighbours, cross-validated over cases. Writes "
        "a ranked table, a picture, and a config of the best. Exit code 1: none could be tried.",
        read_on="docs/probing.md",
    )
    parser.fromfile_prefix_chars = "@"
    add = parser.add_argument
    dataset = add("dataset_name_or_id", metavar="DATASET", help="dataset name or ID, preprocessed")
    complete_by(complete_dataset, dataset)
    add(
        "--backbones",
        nargs="+",
        required=True,
        metavar="WHAT",
        help="weight files, folders of them, NAME=FILE, family:size or timm names (released "
        "weights); @LIST reads a file with one a line",
    )
    add("--random", action="store_true", help="try each architecture with random weights, too")
    add(
        "--taps",
        nargs="+",
        default=["last", "four"],
        metavar="TAPS",
        help="last, four, dinov3, or four blocks such as 2,5,8,11 (default: last four)",
    )
    add(
        "--patch_size",
        nargs="+",
        default=[_OWN],
        metavar="PX",
        help="own, or pixels that patch embeddings are resampled to (default: own)",
    )
    add(
        "--input_norm",
        nargs="+",
        default=["auto", "none"],
        choices=NAMES,
        metavar="NORM",
        help="as in a config (default: auto none)",
    )
    add(
        "--tiles", type=int, default=100, metavar="N", help="look at so many (default: %(default)s)"
    )
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: %(default)s)")
    add("-o", type=Path, metavar="FOLDER", help="to write into (default: probe_DATASET)")
    add("--json", action="store_true", help="print the table as JSON")
    add("-c", default="2d", metavar="CONFIGURATION", help="default: %(default)s")
    add("-p", default=DEFAULT_PLANS, metavar="PLANS", help="default: %(default)s")
    add("-device", default="cpu", choices=("cuda", "cpu", "mps"), help="default: %(default)s")
    return parser
