# PYTHON_ARGCOMPLETE_OK
"""The command that trains: nnUNetv2_train's arguments, and a config."""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from nnunet_vit_trainer.checkpoints.model_folder import BEST
from nnunet_vit_trainer.training.ending.stop import Stopped, signals_stop

from .arguments import DEFAULT_DEVICE, add_what_to_train
from .errors import one_line_errors
from .next_steps import lines_to_predict
from .parser import CommandParser


@one_line_errors
def train() -> None:
    """``nnUNetv2_train_vit``: nnUNetv2_train's arguments and a config."""
    arguments = _train_parser().parse_args()
    try:
        with signals_stop(_say_that_it_ends):
            folder = _run(arguments)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(_how_to_go_on(stopped, arguments.pretrained_weights))
        raise
    if arguments.quiet or os.environ.get("RANK", "0") != "0":
        return  # of torchrun's processes the first says it
    device = ["-device", arguments.device] if arguments.device != DEFAULT_DEVICE else []
    fold = folder.name.removeprefix("fold_")
    print(f"\nResults: {folder}\nPredict with stock nnU-Net:")
    best = ["-chk", BEST] if arguments.val_best else []
    more = [*best, *device]
    for line in lines_to_predict(folder.parent, arguments.dataset_name_or_id, [fold], *more):
        print(f"  {line}")


def _run(arguments: argparse.Namespace) -> Path:
    from nnunet_vit_trainer.launch.run import run_training_vit

    return run_training_vit(
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
        quiet=arguments.quiet,
    )


def _say_that_it_ends(number: int) -> None:
    """Answer a signal; by the system's own call, since a handler may interrupt a print."""
    if os.environ.get("RANK", "0") == "0":
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: ends with this step, and saves; Ctrl-C twice: at once\n".encode())


def _how_to_go_on(stopped: Stopped, pretrained_weights: str | None) -> str:
    """Say what was saved, and the command that continues.

    --c excludes --val, which begins anew, and -pretrained_weights. Before the first checkpoint it
    would go on with an earlier training of the fold, or from the config's weights.
    """
    name = signal.Signals(stopped.number).name
    saved = "what was trained is saved" if stopped.saved else "nothing was saved at that moment"
    given = sys.argv[1:]
    has_checkpoint = stopped.has_checkpoint and "--disable_checkpointing" not in given
    begins_again = "--val" in given or ("--c" not in given and not has_checkpoint)
    more = [] if begins_again else ["--c"]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with_it = ", with --c" if more else ""
        said = f"\nEnded by {name}, {saved}. Start the same torchrun command again{with_it}"
    else:
        if more:
            given = [word for word in given if word != "--c" and not word.startswith("-pr")]
            given = [word for word in given if word != pretrained_weights]
        again = shlex.join([Path(sys.argv[0]).name, *given, *more])
        said = f"\nEnded by {name}, {saved}. Go on with\n  {again}"
    return said


def _train_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_train_vit",
        example="nnUNetv2_train_vit 42 2d 0 --config recommended_dinov2_base",
        about="Train nnU-Net with a vision transformer. Takes nnUNetv2_train's arguments and a "
        "config; the results are predicted with stock nnUNetv2_predict.",
        read_on="docs/training.md, docs/configuration.md (the config), docs/recipe.md, "
        "docs/distributed.md",
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
    best = "validate checkpoint_best (without --val: train anew, then validate)"
    add("--val_best", action="store_true", help=best)
    add("--npz", action="store_true", help="save validation probabilities, for ensembling")
    add("--quiet", action="store_true", help="only warnings here; the log file is whole")
    add("--disable_checkpointing", action="store_true", help="write no checkpoints")
    return parser
