"""The data set that the real commands are tested on, planned and preprocessed once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory):
    """nnU-Net's variables for it."""
    from nnunet_vit_trainer.demo.data import write_dataset

    home = tmp_path_factory.mktemp("nnunet")
    write_dataset(home / "raw", num_train=10, num_test=1, size=64)
    paths = {f"nnUNet_{name}": str(home / name) for name in ("raw", "preprocessed", "results")}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"),
            *["-d", "900", "-c", "2d", "-npfp", "1", "-np", "1"],
        ],
        env=clean | {"nnUNet_def_n_proc": "1"} | paths,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return paths | {"nnUNet_def_n_proc": "1"}
