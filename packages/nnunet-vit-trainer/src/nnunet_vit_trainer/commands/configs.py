# PYTHON_ARGCOMPLETE_OK
"""The command that lists, shows and copies the shipped configs."""

import argparse
import shlex
import sys
from pathlib import Path

from nnunet_vit_trainer.config.catalogue import read_shipped, shipped_configs, write_config
from vit_backbone import UserError

from .arguments import complete_by, complete_shipped
from .errors import one_line_errors
from .parser import CommandParser

_COLUMNS = 80
_EXAMPLE = """nnUNetv2_configs_vit --list
nnUNetv2_configs_vit --write recommended --checkpoint_path FILE"""
_LEGEND = """
M: million parameters. GFLOP: of a 256 px tile's forward pass.
open: fetched from the model hub. gated: from there too, once you were given
access, or your own file. file: yours to get. --show NAME says more.
"""


@one_line_errors
def configs() -> None:
    """``nnUNetv2_configs_vit``: what ``--config`` takes without a file, and copies of it."""
    arguments = _parser().parse_args()
    if arguments.write is None and (arguments.file or arguments.checkpoint_path):
        raise UserError("FILE and --checkpoint_path go with --write NAME")
    if arguments.list:
        _print_list()
    elif arguments.show is not None:
        sys.stdout.write(read_shipped(arguments.show).text)
    elif arguments.reference:
        from nnunet_vit_trainer.config.reference import write_reference

        sys.stdout.write(write_reference())
    else:
        _write(arguments.write, arguments.file, arguments.checkpoint_path)


def _print_list() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("name", "ViT"):
        table.add_column(name, no_wrap=True)
    for name in ("M", "GFLOP"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("head", "licence", "weights"):
        table.add_column(name, no_wrap=True)
    for shipped in map(read_shipped, shipped_configs()):
        size, gflop = shipped.size.partition(" ")[0], shipped.gflop.partition(" ")[0]
        licence = shipped.licence.partition(" (")[0]
        table.add_row(
            *(shipped.name, shipped.backbone, size, gflop, shipped.head, licence, shipped.weights)
        )
    console = Console(width=_COLUMNS, highlight=False)
    console.print(table)
    console.print(_LEGEND, end="")


def _write(name: str, file: Path | None, checkpoint_path: str | None) -> None:
    file = Path(f"{name}.yaml") if file is None else file
    write_config(name, file, checkpoint_path)
    command = f"nnUNetv2_train_vit DATASET 2d FOLD --config {shlex.quote(str(file))}"
    print(f"Written: {file}\nTrain with it:\n  {command}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_configs_vit",
        example=_EXAMPLE,
        about="The configs that nnUNetv2_train_vit --config takes by name: a list, one of them, or "
        "a copy to be changed.",
        read_on="docs/configuration.md (every key), docs/recipe.md (the keys of train)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="what there is, and what it costs")
    show = what.add_argument("--show", metavar="NAME", help="print one as it is shipped")
    write = what.add_argument(
        "--write", metavar="NAME", help="copy one to FILE, which must not be there yet"
    )
    complete_by(complete_shipped, show, write)
    what.add_argument(
        "--reference", action="store_true", help="print every key, as docs/configuration.md"
    )
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE", help="of --write (default: NAME.yaml here)")
    add("--checkpoint_path", metavar="FILE", help="weight file or folder that --write fills in")
    return parser
