# PYTHON_ARGCOMPLETE_OK
"""The command that exports a trained model: as a zip, or its network as an ONNX file."""

import argparse
import logging
import shlex
from pathlib import Path

from vit_backbone import UserError

from .errors import one_line_errors
from .parser import CommandParser


@one_line_errors
def export() -> None:
    """``nnUNetv2_export_vit``: a trained model's folder as a zip, or a fold as an ONNX file."""
    parser = _export_parser()
    arguments = parser.parse_args()
    if arguments.onnx != (arguments.file.suffix == ".onnx"):
        parser.error(f"{arguments.file}: --onnx, and nothing else, writes a file named .onnx")
    if not arguments.onnx and arguments.file.suffix.lower() != ".zip":
        parser.error(f"{arguments.file}: a zip is written, name it {arguments.file.name}.zip")
    if arguments.precision and not arguments.onnx:
        parser.error("--precision goes with --onnx")
    if arguments.onnx:
        _export_onnx(arguments)
    else:
        _export_zip(arguments)


def _export_zip(arguments: argparse.Namespace) -> None:
    from nnunet_vit_trainer.sharing.export import export_vit

    form = "merged" if arguments.merged else "adapter" if arguments.adapter_only else "whole"
    file = export_vit(
        arguments.folder,
        arguments.file,
        form=form,
        folds=arguments.f,
        checkpoint_name=arguments.chk,
    )
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    told = shlex.quote(str(file))
    if form == "adapter":
        print(f"The receiver installs it with their own copy of the base weights:\n  "
              f"nnUNetv2_import_vit {told} --checkpoint_path FILE")  # fmt: skip
    else:
        print(f"{_licence_told(arguments.folder)}Install it with\n  "
              f"nnUNetv2_import_vit {told}\nor with stock nnU-Net:\n  "
              f"nnUNetv2_install_pretrained_model_from_zip {told}")  # fmt: skip


def _export_onnx(arguments: argparse.Namespace) -> None:
    from nnunet_vit_trainer.sharing.onnx.write import export_onnx_vit

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # what it does not simplify
    if arguments.f and len(arguments.f) > 1:
        raise UserError(
            f"-f {' '.join(arguments.f)}: an ONNX file holds one network; export each fold to a "
            "file of its own"
        )
    file = export_onnx_vit(
        arguments.folder,
        arguments.file,
        fold=arguments.f[0] if arguments.f else None,
        checkpoint_name=arguments.chk,
        precision=arguments.precision or "float32",
    )
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    print(f"{_licence_told(arguments.folder)}A predictor for it, without PyTorch, is in "
          "docs/serving.md")  # fmt: skip


def _licence_told(folder: str) -> str:
    """Remind of the licence of the base weights, where the training began with any."""
    from nnunet_vit_trainer.checkpoints.model_folder import named_folder, read_model
    from nnunet_vit_trainer.plans.derive import PLANS_KEY

    plans, _ = read_model(named_folder(folder))
    began_with = plans[PLANS_KEY].get("weights")
    return "It holds the base weights too; mind their licence. " if began_with else ""


def _export_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_export_vit",
        example="nnUNetv2_export_vit RESULTS model.zip --merged",
        about="Export a trained model as a zip, in the layout of nnU-Net's own export. Without a "
        "flag it is whole. --onnx exports the network of one fold instead.",
        read_on="docs/sharing.md, docs/serving.md, docs/security.md",
    )
    add = parser.add_argument
    add(
        "folder",
        metavar="RESULTS",
        help="a trained model's folder, <trainer>__<plans>__<configuration>",
    )
    add("file", type=Path, metavar="OUT", help="the file to write, .zip; .onnx with --onnx")
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
    form.add_argument(
        "--onnx",
        action="store_true",
        help="an ONNX file of one fold, LoRA folded in, with all that a predictor without "
        "PyTorch needs in its metadata (extra [onnx])",
    )
    add(
        "--precision",
        choices=("float32", "float16", "int8"),
        help="of the ONNX file's weights (default: float32)",
    )
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that are there)")
    add(
        "-chk",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint (default: %(default)s)",
    )
    return parser
