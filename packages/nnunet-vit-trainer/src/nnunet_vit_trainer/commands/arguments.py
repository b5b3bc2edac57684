"""The arguments that the commands share which look at a run."""

import argparse

from nnunet_vit_trainer.config.reading import shipped_configs


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
