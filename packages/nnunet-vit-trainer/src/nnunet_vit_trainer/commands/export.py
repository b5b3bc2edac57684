# PYTHON_ARGCOMPLETE_OK
"""The command that exports a trained model."""

import argparse
from pathlib import Path

from .errors import one_line_errors
from .parser import CommandParser


@one_line_errors
def export() -> None:
    """``nnUNetv2_export_vit``: a trained model's folder as a zip."""
    arguments = _export_parser().parse_args()
    from nnunet_vit_trainer.sharing.export import export_vit

    form = "merged" if arguments.merged else "adapter" if arguments.adapter_only else "whole"
    file = export_vit(
        arguments.folder,
        arguments.zip,
        form=form,
        folds=arguments.f,
        checkpoint_name=arguments.chk,
    )
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    if form == "adapter":
        print(f"The receiver installs it with their own copy of the base weights:\n  "
              f"nnUNetv2_import_vit {file.name} --checkpoint_path FILE")  # fmt: skip
    else:
        print(f"It holds the base weights too; mind their licence. Install it with\n  "
              f"nnUNetv2_import_vit {file.name}\nor with stock nnU-Net:\n  "
              f"nnUNetv2_install_pretrained_model_from_zip {file.name}")  # fmt: skip


def _export_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_export_vit",
        example="nnUNetv2_export_vit RESULTS model.zip --merged",
        about="Export a trained model as a zip, in the layout of nnU-Net's own export. Without a "
        "flag it is whole.",
        read_on="docs/sharing.md, docs/security.md",
    )
    add = parser.add_argument
    add(
        "folder",
        metavar="RESULTS",
        help="a trained model's folder, <trainer>__<plans>__<configuration>",
    )
    add("zip", type=Path, metavar="OUT.zip", help="the file to write")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--merged",
        action="store_true",
        help="fold LoRA into the weights, for prediction at full speed; the plans are named "
        "<plans>_merged",
    )
    form.add_argument(
        "--adapter-only",
        action="store_true",
        help="leave out the base weights, which the receiver adds (nnUNetv2_import_vit)",
    )
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that are there)")
    add(
        "-chk",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint (default: %(default)s)",
    )
    return parser
