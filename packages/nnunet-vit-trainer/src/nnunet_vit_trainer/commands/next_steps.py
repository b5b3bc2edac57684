"""What commands tell a user to do next with a trained model."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunet_vit_trainer.checkpoints.model_folder import FINAL
from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.plans.neighbours import KEY


def lines_to_predict(model: Path, dataset: str, folds: Sequence[str], *more: str) -> list[str]:
    """Return the commands that predict with a trained model by stock nnU-Net, in their order.

    Where the data set's channels are neighbouring slices, the images are stacked first; where there
    is no final checkpoint, the one that is there is named.

    Args:
        model: ``<trainer>__<plans>__<configuration>``.
        dataset: its name or number.
        folds: their names.
        more: further words of nnU-Net's command.
    """
    trainer, plans, configuration = model.name.split("__")
    stacks = KEY in read_json(model / "dataset.json")
    images = "STACKED" if stacks else "IMAGES"
    words = ["-d", dataset, "-tr", trainer, "-p", plans, "-c", configuration, "-f", *folds]
    words += ["-i", images, "-o", "OUTPUT", *more]
    there = {file.name for fold in folds for file in model.glob(f"fold_{fold}/checkpoint_*.pth")}
    words += ["-chk", min(there)] if there and FINAL not in there and "-chk" not in more else []
    stack = shlex.join(["-i", "IMAGES", "-o", images, "-m", str(model)])
    lines = [f"nnUNetv2_neighbours_vit {stack}"] if stacks else []
    return [*lines, f"nnUNetv2_predict {shlex.join(words)}"]
