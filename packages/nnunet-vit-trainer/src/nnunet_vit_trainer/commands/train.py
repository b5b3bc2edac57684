"""The command that trains: nnUNetv2_train's arguments, and a config."""

import argparse
import os

from .arguments import add_what_to_train
from .errors import one_line_errors


@one_line_errors
def train() -> None:
    """``nnUNetv2_train_vit``: nnUNetv2_train's arguments and a config."""
    arguments = _train_parser().parse_args()
    from nnunet_vit_trainer.launch.run import run_training_vit

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
