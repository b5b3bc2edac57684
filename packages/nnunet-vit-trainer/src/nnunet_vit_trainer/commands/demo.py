# PYTHON_ARGCOMPLETE_OK
"""The command that runs the demo."""

from .errors import one_line_errors
from .parser import CommandParser


@one_line_errors
def demo() -> None:
    """``nnUNetv2_demo_vit``: the main job on an embedded data set."""
    arguments = _parser().parse_args()
    from nnunet_vit_trainer.demo import run_demo

    run_demo(arguments.folder, arguments.weights)


def _parser() -> CommandParser:
    parser = CommandParser(
        "nnUNetv2_demo_vit",
        example="nnUNetv2_demo_vit\nnnUNetv2_demo_vit --weights vit_small_patch14.safetensors",
        about="Train a tiny ViT on a small procedural data set and predict with stock "
        "nnU-Net: offline, on a CPU, in about two minutes; look at its overlay sheet and report.",
        read_on="docs/tutorial.md, docs/own-data.md",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="nnunet_vit_demo",
        metavar="FOLDER",
        help="everything is written below it (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="tune this pretrained ViT by LoRA instead of training a tiny one (a ViT-S takes four "
        "minutes, a ViT-L ten times that)",
    )
    return parser
