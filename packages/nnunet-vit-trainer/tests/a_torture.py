"""A small training in a process of its own, as the command is, on a copy of the data."""

import shutil
import time

import torch
import yaml

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import DEFAULT_TRAINER

PATIENCE = 3600  # seconds, for machines that do other work too
SECONDS_TO_END = 10
CONFIG = {
    "model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False},
    "train": {
        "num_epochs": 4,
        "num_iterations_per_epoch": 10,  # 12 batches may wait in queues
        "num_val_iterations_per_epoch": 1,
        "save_every": 1,
        "batch_size": 2,
        "patch_size": [32, 32],
    },
}


class Run:
    """A training, and what it left."""

    def __init__(self, preprocessed, folder):
        self.folder = folder
        self.environment = preprocessed | {
            "nnUNet_preprocessed": str(folder / "preprocessed"),
            "nnUNet_results": str(folder / "results"),
            "nnUNet_n_proc_DA": "2",
            "HF_HUB_OFFLINE": "1",
        }
        shutil.copytree(preprocessed["nnUNet_preprocessed"], folder / "preprocessed")
        self.config = folder / "starve.yaml"
        self.config.write_text(yaml.safe_dump(CONFIG))
        results = folder / "results" / DATASET
        self.fold = results / f"{DEFAULT_TRAINER}__nnUNetPlans_starve__2d/fold_0"

    def train(self, trouble, parameter=None, *flags, **environment):
        """Train, and return the exit code and the lines of stderr."""
        import a_run

        arguments = [DATASET, "2d", "0", "--config", str(self.config), "-device", "cpu", *flags]
        for name in ("out", "err", "happened"):
            (self.folder / name).unlink(missing_ok=True)
        process = a_run.server().Process(
            target=a_run.train,
            args=(arguments, self.environment | environment, self.folder, trouble, parameter),
        )
        process.start()
        process.join(PATIENCE)
        ended = time.time()
        code = process.exitcode
        process.kill()
        deadline = time.monotonic() + SECONDS_TO_END
        while (left := a_run.group_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == [], "processes that outlived their trainer"
        if (self.folder / "happened").exists():
            self.noticed = ended - float((self.folder / "happened").read_text())
            print(f"{trouble} {parameter or ''}: ended {self.noticed:.1f} s later")  # noqa: T201
        return code, (self.folder / "err").read_text().splitlines()

    def fails(self, trouble, parameter=None, **environment):
        """Train, expect one line and exit code 2, and return the line."""
        code, said = self.train(trouble, parameter, **environment)
        printed = (self.folder / "out").read_text()
        assert code == 2, (said, printed)
        assert len(said) == 1, said
        assert "Traceback" not in printed
        assert not list(self.folder.rglob("*.tmp"))
        return said[0]

    def epochs(self, name):
        content = torch.load(self.fold / f"checkpoint_{name}.pth", weights_only=False)
        return content["current_epoch"]
