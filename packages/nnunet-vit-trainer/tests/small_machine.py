"""A command of the documents as a machine without a GPU and without weights runs it, in seconds.

`python small_machine.py COMMAND ARGUMENTS` runs that command with those arguments, but on the CPU,
in few processes, and with a stand-in for the config: the same file, with timm's smallest ViT for a
backbone, random numbers for its weights ($STAND_IN_WEIGHTS), and six steps for a training. Stock
nnU-Net's trainings are as short.
"""

import os
import sys
from pathlib import Path

import yaml

from nnunet_vit_trainer.config.reading import find_config

ON_THE_CPU = ("-device", "cpu")
MORE = {
    "nnUNetv2_plan_and_preprocess": ("-npfp", "1", "-np", "1"),
    "nnUNetv2_predict": (*ON_THE_CPU, "-npp", "0", "-nps", "0"),
    "nnUNetv2_doctor_vit": ON_THE_CPU,
    "nnUNetv2_features_vit": ON_THE_CPU,
    "nnUNetv2_predict_vit": ON_THE_CPU,
    "nnUNetv2_probe_vit": (*ON_THE_CPU, "--tiles", "8"),
    "nnUNetv2_train": ON_THE_CPU,
    "nnUNetv2_train_vit": ON_THE_CPU,
}
SHORT = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 3,
    "num_val_iterations_per_epoch": 1,
    "batch_size": 2,
    "patch_size": None,
}


def stand_in(config, weights, folder):
    """Write a config's stand-in under its name into the folder, and return its file."""
    content = yaml.safe_load(find_config(config).read_text())
    small = {"backbone": "test_vit", "backbone_size": None, "checkpoint_path": str(weights)}
    content["model"] |= small
    content["train"] = content.get("train", {}) | SHORT
    folder.mkdir(exist_ok=True)
    file = folder / f"{Path(config).stem}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def arguments_of(command, arguments, weights, folder):
    """Return what a command is given here instead of its arguments in the document."""
    arguments = list(arguments)
    if "--config" in arguments:
        place = arguments.index("--config") + 1
        arguments[place] = str(stand_in(arguments[place], weights, folder))
    return [*arguments, *MORE.get(command, ())]  # of an option given twice the last one counts


def train_stock(arguments):
    """Do as nnUNetv2_train does, but shortly: its trainers have no option for that."""
    from nnunetv2.run.run_training import run_training_entry
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    initialize = nnUNetTrainer.initialize

    def initialize_for_a_short_run(trainer):
        vars(trainer).update(SHORT)
        trainer.configuration_manager.configuration["batch_size"] = SHORT["batch_size"]
        initialize(trainer)

    nnUNetTrainer.initialize = initialize_for_a_short_run
    sys.argv = ["nnUNetv2_train", *arguments]
    run_training_entry()


def main():
    command, *arguments = sys.argv[1:]
    weights = Path(os.environ["STAND_IN_WEIGHTS"])
    arguments = arguments_of(command, arguments, weights, Path("stand_ins"))
    if command == "nnUNetv2_train":
        train_stock(arguments)
    else:
        os.execv(Path(sys.executable).parent / command, [command, *arguments])


if __name__ == "__main__":
    main()
