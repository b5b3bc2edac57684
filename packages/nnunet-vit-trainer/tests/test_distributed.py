"""Several processes: how they end, and that they train as one does; `test_ranks` is one of them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nnunet_vit_trainer.commands.train import train as train_command
from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch import ranks, run
from nnunet_vit_trainer.training.ending.stop import Stopped
from vit_backbone import UserError

HERE = Path(__file__).parent
PROGRAMS = Path(sys.executable).parent
PATIENCE = 900  # seconds, for machines that do other work too


@pytest.fixture(scope="module")
def two_ranks():
    """The module of what the processes do, under a name by which they import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import two_ranks

        yield two_ranks


@pytest.fixture(scope="module")
def lost(two_ranks, tmp_path_factory):
    """What is said when the second of two ranks is killed, and what the ranks left."""
    folder = tmp_path_factory.mktemp("lost")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "none_such")  # not what leads to other machines
        with pytest.raises(UserError) as caught:
            ranks.launch(2, "cpu", two_ranks.lose_rank_1, str(folder))
    return str(caught.value), folder


def test_a_killed_process_ends_the_others_and_its_workers_in_one_line(lost, is_alive):
    said, folder = lost
    assert said == "process 1 of 2 ended by SIGKILL and took the others along; continue with --c"
    (worker,) = (int(file.name) for file in (folder / "workers").iterdir())
    deadline = time.monotonic() + PATIENCE
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux's /proc")
def test_processes_of_one_machine_listen_to_no_other(lost):
    """Neither the launcher's store nor gloo."""
    _, folder = lost
    for rank in (0, 1):
        of_store, own = json.loads((folder / f"listening_{rank}.json").read_text())
        assert of_store
        assert own
        assert all(ip_address(address).is_loopback for address in of_store + own)


def test_an_error_of_all_ranks_is_said_once(two_ranks, capfd):
    with pytest.raises(UserError, match=r"^refused by rank [01]$"):
        ranks.launch(2, "cpu", two_ranks.refuse)
    said = capfd.readouterr()
    assert "rank 0 speaks" in said.out
    assert "rank 1 speaks" not in said.out
    assert "refused" not in said.err


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 here")
@pytest.mark.parametrize(
    ("number", "target", "code"),
    [("SIGUSR1", "rank", 0), ("SIGTERM", "launcher", 143)],
)
def test_ranks_end_together_whoever_gets_the_signal(number, target, code, two_ranks, tmp_path):
    with pytest.raises(Stopped) as caught:
        ranks.launch(
            2, "cpu", two_ranks.take_steps, str(tmp_path), int(getattr(signal, number)), target
        )
    assert (caught.value.code, caught.value.saved) == (code, True)
    steps = [file.name.split("_") for file in sorted(tmp_path.iterdir())]
    assert [rank for rank, *_ in steps] == ["0", "1"]
    assert steps[0][-1] == steps[1][-1]


def torchrun(node, port, *command, **environment):
    """Start the agent of one of two machines, with one process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    return subprocess.Popen(
        [
            str(PROGRAMS / "torchrun"),
            *("--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1"),
            *("--master-addr", "127.0.0.1", "--master-port", str(port)),
            *map(str, command),
        ],
        env=clean | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port():
    """Find a port that no connection gets by chance until torchrun takes it."""
    first = 20000 + os.getpid() % 10000  # Linux gives those from 32768 on
    for port in range(first, first + 1000):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def on_two_machines(tmp_path_factory):
    """What each of two machines found."""
    pytest.importorskip("vit_heads_unetr")
    pytest.importorskip("vit_heads_segformer")
    out, port = tmp_path_factory.mktemp("two_ranks"), free_port()
    machines = [torchrun(node, port, HERE / "two_ranks.py", out) for node in (0, 1)]
    said = [machine.communicate(timeout=PATIENCE)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    assert (out / "prepared").read_text() == '"0"'
    return [torch.load(out / f"rank_{rank}.pt") for rank in (0, 1)]


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["plain", "deep", "ignore", "regions"])
def test_two_machines_train_as_one_process_does(kind, on_two_machines, two_ranks, tmp_path):
    """With AdamW, nnU-Net's loss, and what `two_ranks.LABELS` says."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):  # which it sets
            patch.setenv(f"nnUNet_{name}", "")
        losses, weights, before, _ = two_ranks.train(tmp_path, "unetr", kind, **two_ranks.NARROW)
    first, second = (found[kind] for found in on_two_machines)
    assert first["losses"] != second["losses"]  # they saw other images
    assert np.mean([first["losses"], second["losses"]], 0) == pytest.approx(losses, abs=2e-6)
    assert first["weights"].keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        assert torch.allclose(first["weights"][name], weight, rtol=0, atol=1e-6), name
    moved = [name for name in weights if (weights[name] - before[name]).abs().max() > 1e-5]
    assert len(moved) > len(weights) / 2


@pytest.mark.integration
def test_a_rank_predicts_without_the_others(on_two_machines):
    """With a network that has buffers, which DDP would broadcast."""
    assert [found["met"] for found in on_two_machines] == [2.0, 2.0]


@pytest.mark.integration
def test_batch_norm_is_refused_on_cpus(on_two_machines):
    for found in on_two_machines:
        assert "several processes share on CUDA only" in found["batch norm"]


@pytest.fixture(scope="module")
def killed(preprocessed, tmp_path_factory):
    """The real command on two machines, the process of the second killed after an epoch."""
    pytest.importorskip("vit_heads_unetr")
    home, port = tmp_path_factory.mktemp("distributed"), free_port()
    content = {
        "model": {
            "model_path": "unetr",
            "backbone": "test_vit",
            "pretrained": False,
            "decoder": {"decoder_channels": [16, 16, 8, 8, 8]},
        },
        "train": {
            "num_epochs": 1000,
            "num_iterations_per_epoch": 2,
            "num_val_iterations_per_epoch": 1,
            "batch_size": 2,
            "patch_size": [56, 40],
        },
    }
    config = home / "two.yaml"
    config.write_text(yaml.safe_dump(content))
    paths = preprocessed | {"nnUNet_results": str(home / "results")}
    command = [PROGRAMS / "nnUNetv2_train_vit", DATASET, "2d", "0", "--config", config]
    machines = [
        torchrun(node, port, *command, "-device", "cpu", nnUNet_n_proc_DA="1", **paths)
        for node in (0, 1)
    ]
    fold = home / "results" / DATASET
    fold /= f"{run.DEFAULT_TRAINER}__nnUNetPlans_two__2d/fold_0"
    deadline = time.monotonic() + PATIENCE
    while not (fold / "checkpoint_best.pth").is_file():
        assert time.monotonic() < deadline
        assert [machine.poll() for machine in machines] == [None, None], machines[0].communicate()
        time.sleep(0.2)
    os.kill(only_child(machines[1].pid), signal.SIGKILL)
    # The output of a machine ends with the last process that holds it, data workers too.
    said = [machine.communicate(timeout=PATIENCE)[0] for machine in machines]
    return paths, config, fold, said, [machine.returncode for machine in machines]


@pytest.mark.integration
def test_a_group_that_is_asked_to_end_saves_together_and_goes_on(preprocessed, tmp_path):
    """The launcher alone gets the signal; the second start goes on in the epoch of the first."""
    model = {"model_path": "linear", "backbone": "test_vit", "pretrained": False}
    train = {"num_epochs": 1000, "num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1}
    content = {"model": model, "train": train | {"batch_size": 2, "patch_size": [48, 48]}}
    config = tmp_path / "asked.yaml"
    config.write_text(yaml.safe_dump(content))
    own = {"nnUNet_results": str(tmp_path / "results"), "nnUNet_n_proc_DA": "1"}
    command = [PROGRAMS / "nnUNetv2_train_vit", DATASET, "2d", "0", "--config", config, "--c"]
    finished = 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGUSR1, 0)):
        with subprocess.Popen(
            [*map(str, command), "-device", "cpu", "-num_gpus", "2"],
            env=os.environ | preprocessed | own | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as launcher:
            said = list(iter_until("Epoch time:", launcher.stdout))
            launcher.send_signal(number)
            said += launcher.stdout.readlines()
        assert launcher.returncode == code, "".join(said)
        assert sum("Go on with" in line for line in said) == 1
        assert not any("Traceback" in line for line in said)
        (file,) = tmp_path.rglob("checkpoint_latest.pth")
        content = torch.load(file, weights_only=False)
        epochs = [int(line.split()[-1]) for line in said if re.search(r" Epoch \d+", line)]
        assert epochs[0] == finished
        finished = content["current_epoch"]
        assert finished == epochs[-1] > 0
        assert {len(values) for values in content["logging"].values()} == {finished}


def iter_until(words, lines):
    """Yield lines up to the first that holds the words."""
    for line in lines:
        yield line
        if words in line:
            return


def only_child(pid):
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.mark.integration
def test_a_process_that_is_killed_ends_all_machines(killed):
    _, _, _, said, codes = killed
    assert all(code != 0 for code in codes)
    lines = [line for line in said[0].splitlines() if "nnUNetv2_train_vit: " in line]
    assert len(lines) == 1
    assert re.search(r"rank 0 on .* lost another process .*; continue with --c$", lines[0])
    assert "SIGKILL" in said[1]  # by torchrun
    assert "Epoch 0" not in said[1]  # rank 0 has said it


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_the_killed_run_continues_with_num_gpus_to_its_end(killed, monkeypatch):
    paths, config, fold, _, _ = killed
    checkpoint = torch.load(fold / "checkpoint_best.pth", weights_only=False)
    epoch = checkpoint["current_epoch"]
    content = yaml.safe_load(config.read_text())
    content["train"]["num_epochs"] = epoch + 1
    config.write_text(yaml.safe_dump(content))
    for name, value in {**paths, "nnUNet_n_proc_DA": "0"}.items():
        monkeypatch.setenv(name, value)
    arguments = [DATASET, "2d", "0", "--config", str(config), "-device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train_vit", *arguments, "-num_gpus", "2", "--c"])
    train_command()
    log = max(fold.glob("training_log*.txt"), key=lambda file: file.stat().st_mtime_ns).read_text()
    assert re.findall(r"Epoch (\d+)", log) == [str(epoch)]
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == epoch + 1
    assert not any(key.startswith("module.") for key in final["network_weights"])
    split = json.loads(Path(paths["nnUNet_preprocessed"], DATASET, "splits_final.json").read_text())
    validated = sorted(file.stem for file in (fold / "validation").glob("*.png"))
    assert validated == sorted(split[0]["val"])
    assert all(np.asarray(Image.open(file)).ndim == 2 for file in fold.glob("validation/*.png"))
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(validated)
