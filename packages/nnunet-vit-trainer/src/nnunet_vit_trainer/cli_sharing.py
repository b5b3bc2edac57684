"""The commands that share a model: export it, and install what somebody exported."""

import argparse
import shlex
from pathlib import Path

from .cli import one_line_errors
from .datasets import environment
from .one_line import shown


@one_line_errors
def export() -> None:
    """``nnUNetv2_export_vit``: a trained model's folder as a zip."""
    arguments = _export_parser().parse_args()
    from .export import export_vit

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
              f"nnUNetv2_install_pretrained_model_from_zip {file.name}")  # fmt: skip


@one_line_errors
def import_() -> None:
    """``nnUNetv2_import_vit``: install an export into nnUNet_results."""
    arguments = _import_parser().parse_args()
    results = environment("nnUNet_results")
    from .install import import_vit

    folder, left_out = import_vit(
        arguments.zip, results, arguments.checkpoint_path, head=arguments.head
    )
    folds = " ".join(sorted(f.name.removeprefix("fold_") for f in folder.glob("fold_*")))
    print(f"Installed: {folder}")
    if left_out:
        more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
        print(f"Left out (not data alone): {', '.join(map(shown, left_out[:10]))}{more}")
    # A stranger chose these names, and a user will paste them into a shell.
    dataset, trainer, plans, configuration = map(
        shlex.quote, (folder.parent.name, *folder.name.split("__"))
    )
    print(
        f"Predict with stock nnU-Net:\n  nnUNetv2_predict -d {dataset} -tr {trainer} "
        f"-p {plans} -c {configuration} -f {folds} -i IMAGES -o OUTPUT"
    )


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Export a trained model as a zip, in the layout of nnU-Net's own export. "
        "Without a flag it is whole."
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


def _import_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Install an export of nnUNetv2_export_vit into nnUNet_results. Checkpoints "
        "are read as data only: no code in them is run, or installed. Plans may name nnU-Net's own "
        "classes and installed heads."
    )
    parser.add_argument("zip", type=Path, metavar="FILE.zip", help="the export")
    parser.add_argument(
        "--checkpoint_path",
        type=Path,
        metavar="FILE",
        help="the base weights, for an export made with --adapter-only",
    )
    parser.add_argument(
        "--head",
        metavar="MODULE",
        help="a module that you trust, where the export names it as its head: it is imported, "
        "which runs it",
    )
    return parser
