"""What the integration tests share: a planned data set, and the real commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PATHS = ("raw", "preprocessed", "results")


def run_command(command, *arguments, **environment):
    """Run a command of this environment in a fresh process, with nnU-Net's variables as given."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / command), *map(str, arguments)],
        env=clean | {"nnUNet_def_n_proc": "1", "HF_HUB_OFFLINE": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def run():
    return run_command


@pytest.fixture(scope="module")
def home(tmp_path_factory, home_of):
    """A planned and preprocessed data set, and this process's environment for it."""
    from nnunet_vit_trainer.demo.data import write_dataset

    home = tmp_path_factory.mktemp("nnunet")
    write_dataset(home / "raw", num_train=10, num_test=1, size=64)
    with home_of(home, "900"):
        yield home


@pytest.fixture(scope="session")
def home_of():
    """Plan and preprocess a data set below a folder, and set this process's environment for it."""
    from contextlib import contextmanager

    @contextmanager
    def home_of(home, *datasets):
        paths = {f"nnUNet_{name}": str(home / name) for name in PATHS}
        run_command(
            "nnUNetv2_plan_and_preprocess",
            *["-d", *datasets, "-c", "2d", "-npfp", "1", "-np", "1"],
            **paths,
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**paths, "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0"}.items():
                patch.setenv(name, value)
            yield

    return home_of
