# PYTHON_ARGCOMPLETE_OK
"""The command that installs what somebody exported."""

import argparse
from pathlib import Path

from nnunet_vit_trainer.plans.datasets import environment, others_of_number
from vit_backbone import quoted

from .errors import one_line_errors
from .next_steps import lines_to_predict
from .parser import CommandParser


@one_line_errors
def import_() -> None:
    """``nnUNetv2_import_vit``: install an export into nnUNet_results."""
    arguments = _import_parser().parse_args()
    results = environment("nnUNet_results")
    from nnunet_vit_trainer.results.card.folder import members_of
    from nnunet_vit_trainer.sharing.install import import_vit

    folder, left_out = import_vit(
        arguments.zip, results, arguments.checkpoint_path, head=arguments.head
    )
    print(f"Installed: {folder}")
    if left_out:
        more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
        print(f"Left out (not data alone): {', '.join(map(quoted, left_out[:10]))}{more}")
    if others := others_of_number(folder.parent.name):
        print(
            f"There is {', '.join(map(quoted, others))} of the same number: nnU-Net refuses that "
            "alone now; give the data sets' names"
        )
    print("Predict with stock nnU-Net:")
    # A stranger chose the names in them, and a user will paste them into a shell: they are quoted.
    for line in lines_to_predict(folder, folder.parent.name, members_of(folder)):
        print(f"  {line}")


def _import_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_import_vit",
        example="nnUNetv2_import_vit model.zip",
        about="Install an export of nnUNetv2_export_vit into nnUNet_results. Checkpoints are read "
        "as data only: no code in them is run, or installed. Plans may name classes of nnU-Net and "
        "installed heads.",
        read_on="docs/sharing.md, docs/security.md",
    )
    parser.add_argument("zip", type=Path, metavar="FILE.zip", help="the export")
    parser.add_argument(
        "--checkpoint_path",
        type=Path,
        metavar="FILE",
        help="the base weights, for an --adapter-only export",
    )
    parser.add_argument(
        "--head",
        metavar="MODULE",
        help="a module that you trust, where the export names it as its head: it is imported, "
        "which runs it",
    )
    return parser
