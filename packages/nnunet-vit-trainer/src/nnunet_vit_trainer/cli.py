"""The commands. Users see one line and exit code 2 for what they can mend, no traceback."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from vit_backbone import UserError

from .config_file import shipped_configs
from .processes import sigterm_raises


def one_line_errors(command: Callable[[], None]) -> Callable[[], None]:
    """Make a command print a `UserError` as one line and exit with 2; with 130 after Ctrl-C.

    SIGTERM ends it with clean-up too, and with 143.
    """

    @wraps(command)
    def run() -> None:
        # timm 1.0.22 scripts an interface, of which torch 2.15 warns in every process.
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning:torch.jit._script")
        import warnings

        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\._script")
        try:
            with sigterm_raises():
                command()
        except UserError as error:
            print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None

    return run


@one_line_errors
def train() -> None:
    """``nnUNetv2_train_vit``: nnUNetv2_train's arguments and a config."""
    arguments = _train_parser().parse_args()
    from .run import run_training_vit

    folder = run_training_vit(
        arguments.dataset_name_or_id,
        arguments.configuration,
        arguments.fold,
        arguments.config,
        trainer_class_name=arguments.tr,
        plans_identifier=arguments.p,
        pretrained_weights=arguments.pretrained_weights,
        num_gpus=arguments.num_gpus,
        export_validation_probabilities=arguments.npz,
        continue_training=arguments.c,
        only_run_validation=arguments.val,
        disable_checkpointing=arguments.disable_checkpointing,
        val_with_best=arguments.val_best,
        device=arguments.device,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # the first of torchrun's processes says it
    trainer, plans, configuration = folder.parent.name.split("__")
    print(
        f"\nResults: {folder}\nPredict with stock nnU-Net:\n  nnUNetv2_predict "
        f"-d {arguments.dataset_name_or_id} -tr {trainer} -p {plans} -c {configuration} "
        f"-f {folder.name.removeprefix('fold_')} -i IMAGES -o OUTPUT"
    )


@one_line_errors
def demo() -> None:
    """``nnUNetv2_demo_vit``: the main job on an embedded data set."""
    parser = argparse.ArgumentParser(
        description="Train a tiny ViT on a small procedural data set and predict with stock "
        "nnU-Net: offline, on a CPU, in about four minutes."
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="nnunet_vit_demo",
        metavar="FOLDER",
        help="everything is written below it (default: %(default)s)",
    )
    arguments = parser.parse_args()
    from .demo import run_demo

    run_demo(arguments.folder)


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train nnU-Net with a vision transformer. Takes nnUNetv2_train's arguments "
        "and a config; the results are predicted with stock nnUNetv2_predict."
    )
    add = parser.add_argument
    add_what_to_train(parser)
    add("fold", metavar="FOLD", help="0 to 4, or all")
    add(
        "-pretrained_weights",
        metavar="FILE",
        help="nnU-Net checkpoint to start from, instead of the config's weights",
    )
    add(
        "-num_gpus", type=int, default=1, metavar="N", help="processes of this machine, one per GPU"
    )
    add("--c", action="store_true", help="continue from the latest checkpoint")
    add("--val", action="store_true", help="only validate a finished training")
    add("--val_best", action="store_true", help="validate with checkpoint_best")
    add("--npz", action="store_true", help="save validation probabilities, for ensembling")
    add("--disable_checkpointing", action="store_true", help="write no checkpoints")
    return parser


def add_what_to_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is trained, and where: data set, config, trainer, device."""
    add = parser.add_argument
    add("dataset_name_or_id", metavar="DATASET", help="dataset name or ID, preprocessed")
    add("configuration", metavar="CONFIGURATION", help="a 2D configuration, such as 2d")
    add(
        "--config",
        required=True,
        metavar="FILE_OR_NAME",
        help=f"YAML file, or a shipped config: {', '.join(shipped_configs())}",
    )
    add(
        "-tr",
        default="nnUNetTrainerNoDeepSupervision_vit",
        metavar="TRAINER",
        help="trainer (default: %(default)s; with deep supervision: nnUNetTrainer_vit)",
    )
    add(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        help="the dataset's plans (default: %(default)s)",
    )
    add(
        "-device",
        default="cuda",
        choices=("cuda", "cpu", "mps"),
        help="where to train (default: %(default)s)",
    )
