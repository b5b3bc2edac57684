# PYTHON_ARGCOMPLETE_OK
"""The command that looks at a run before it is started."""

import argparse
import shlex

from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER

from .arguments import DEFAULT_DEVICE, add_what_to_train
from .errors import one_line_errors
from .parser import CommandParser


@one_line_errors
def doctor() -> None:
    """``nnUNetv2_doctor_vit``: one step and one tile, and a page about them."""
    arguments = _parser().parse_args()
    from rich.console import Console

    from nnunet_vit_trainer.doctor import examine, print_page

    with Console(stderr=True).status("taking a few steps ..."):
        found = examine(
            arguments.dataset_name_or_id,
            arguments.configuration,
            arguments.config,
            trainer_class_name=arguments.tr,
            plans_identifier=arguments.p,
            device=arguments.device,
        )
    print_page(found)
    if found.is_fatal:
        raise SystemExit(1)
    print(f"Next:\n  {_next(arguments, found.fold)}")


def _next(arguments: argparse.Namespace, fold: str) -> str:
    """Return the command that trains what was looked at."""
    words = ["nnUNetv2_train_vit", arguments.dataset_name_or_id, arguments.configuration, fold]
    words += ["--config", arguments.config]
    others = {"-tr": DEFAULT_TRAINER, "-p": DEFAULT_PLANS, "-device": DEFAULT_DEVICE}
    for option, usual in others.items():
        value = getattr(arguments, option[1:])
        words += [option, value] if value != usual else []
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_doctor_vit",
        example="nnUNetv2_doctor_vit 42 2d --config my.yaml",
        about="Look before the long run: build, load, take a few training steps on the data set, "
        "predict one tile, and print what it costs and what is wrong. Nothing is left behind. "
        "Exit code 1: something fatal was found.",
        read_on="docs/training.md, docs/choosing.md",
    )
    add_what_to_train(parser)
    return parser
