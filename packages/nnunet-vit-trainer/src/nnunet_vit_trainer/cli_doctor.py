"""The command that looks at a run before it is started."""

import argparse

from .cli import one_line_errors
from .config_file import shipped_configs


@one_line_errors
def doctor() -> None:
    """``nnUNetv2_doctor_vit``: one step and one tile, and a page about them."""
    arguments = _parser().parse_args()
    from rich.console import Console

    from .doctor import examine, print_page

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Look before the long run: build, load, take a few training steps on the data "
        "set, predict one tile, and print what it costs and what is wrong. Nothing is left "
        "behind. Exit code 1: something fatal was found."
    )
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
        help="where the run is to train (default: %(default)s)",
    )
    return parser
