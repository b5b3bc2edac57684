"""What the integration tests share: planned data sets, and the real commands."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

# For the tests' own modules: pytest's importlib mode does not make their folder importable.
sys.path.append(str(Path(__file__).parent))

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


def plan(home, dataset):
    """Plan and preprocess a data set below a folder, and return nnU-Net's variables for it."""
    paths = {f"nnUNet_{name}": str(home / name) for name in PATHS}
    arguments = ["-d", dataset, "-c", "2d", "-npfp", "1", "-np", "1"]
    run_command("nnUNetv2_plan_and_preprocess", *arguments, **paths)
    return paths | {"nnUNet_def_n_proc": "1"}


class PoolsOfThreads:
    """A context of multiprocessing whose pools are threads: the rest is the context's own."""

    Pool = ThreadPool

    def __init__(self, method=None):
        self.context = get_context(method)

    def __getattr__(self, name):
        return getattr(self.context, name)


@contextlib.contextmanager
def environment_of(variables):
    """Set nnU-Net's variables, and let its pools be threads.

    A validation spawns two pools, whose processes take 10 s each to import nnU-Net. One of the
    tests has them as they are: `real_pools`.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, "nnUNet_n_proc_DA": "0"}.items():
            patch.setenv(name, value)
        patch.setattr(multiprocessing, "get_context", PoolsOfThreads)
        yield


@pytest.fixture
def real_pools():
    """nnU-Net's pools as they are, of processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", get_context)
        yield


@pytest.fixture
def pools_of_threads(monkeypatch):
    """Let nnU-Net's pools be threads, as `environment_of` does."""
    monkeypatch.setattr(multiprocessing, "get_context", PoolsOfThreads)


@pytest.fixture(scope="session")
def is_alive():
    """Tell whether a process runs; a zombie, which nobody waited for, does not."""

    def is_alive(pid):
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    return is_alive


@pytest.fixture(scope="session")
def run():
    return run_command


@pytest.fixture(scope="session")
def exporter(tmp_path_factory):
    """Another machine: a weight file, and below ``results`` what was trained from it."""
    from trained_results import write_weights

    return write_weights(tmp_path_factory.mktemp("exporter"))


@pytest.fixture(scope="session")
def trained_folder(exporter):
    """A trained model's folder there: LoRA under the linear head."""
    from trained_results import write_results

    return write_results(exporter)


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory):
    """nnU-Net's variables for the demo's data set, smaller, planned and preprocessed once."""
    from nnunet_vit_trainer.demo.data import write_dataset

    home = tmp_path_factory.mktemp("nnunet")
    write_dataset(home / "raw", num_train=10, num_test=1, size=64)
    return plan(home, "900")


@pytest.fixture(scope="module")
def home(preprocessed):
    """The folder that holds it, and this process's environment for it."""
    with environment_of(preprocessed):
        yield Path(preprocessed["nnUNet_raw"]).parent


@pytest.fixture(scope="session")
def home_of():
    """Plan a data set below a folder and set this process's environment for it."""

    @contextlib.contextmanager
    def home_of(home, dataset):
        with environment_of(plan(home, dataset)):
            yield

    return home_of
