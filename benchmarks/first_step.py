"""Be a training command, ours where it is given a config, and stop where it would take a step.

For start_up.py: it prints when that was. Arguments are the command's own.
"""

import sys
import time
from typing import Any


def main() -> None:
    """Run the command up to there."""
    if "--config" in sys.argv:
        from nnunet_vit_trainer.commands.train import train as run
        from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit as Trainer
    else:
        from nnunetv2.run.run_training import run_training_entry as run
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Trainer
    Trainer.train_step = tell
    run()


def tell(*_: Any) -> None:
    """Say that a first batch is there, and wait to be ended."""
    print(f"\nfirst step {time.time()} {time.process_time()}", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
