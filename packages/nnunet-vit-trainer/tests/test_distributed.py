"""Several processes: which device each takes, how they end, and that they train as one does."""

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
from torch import nn

from nnunet_vit_trainer.commands.train import train as train_command
from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch import checks, ranks, run
from nnunet_vit_trainer.training import group
from vit_backbone import UserError

HERE = Path(__file__).parent
PROGRAMS = Path(sys.executable).parent
PATIENCE = 900  # seconds, for machines that do other work too


@pytest.fixture
def rank(monkeypatch):
    """Make this process look like rank 5 of 8, the second on its machine."""
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))


def test_the_device_is_the_local_ranks(rank, monkeypatch):
    """nnU-Net takes the global rank, which the second machine does not have."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert group.local_device("cuda") == torch.device("cuda", 1)
    assert group.local_device("cpu") == torch.device("cpu")


def test_more_processes_than_devices_of_a_machine_are_refused(rank, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"process 1 of .* has no CUDA device, there are 1"):
        group.local_device("cuda")


def test_on_cuda_the_network_is_wrapped_for_that_device(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        group, "DistributedDataParallel", lambda network, **options: seen.update(options)
    )
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    group.wrap(network, torch.device("cuda", 1))
    assert seen["device_ids"] == [1]
    assert isinstance(network[1], nn.SyncBatchNorm)


@pytest.mark.parametrize("value", ["ten", "0", "-1"])
def test_a_time_limit_that_is_none_is_refused(value, rank, monkeypatch):
    monkeypatch.setenv("nnUNet_vit_timeout", value)
    with pytest.raises(UserError, match=f"nnUNet_vit_timeout={value}: a number of seconds"):
        group.process_group("cpu", None).__enter__()


def test_num_gpus_beside_torchrun(rank):
    assert run._processes_of_torchrun(1) == run._processes_of_torchrun(8) == 8
    with pytest.raises(UserError, match="-num_gpus 2, but torchrun has started 8 processes"):
        run._processes_of_torchrun(2)


def test_half_an_environment_is_refused(rank, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(UserError, match="LOCAL_RANK; start with torchrun"):
        run._processes_of_torchrun(1)


def test_without_torchrun_this_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert run._processes_of_torchrun(4) == 0
    with pytest.raises(UserError, match="-num_gpus 0: at least 1"):
        run._processes_of_torchrun(0)


@pytest.mark.parametrize(
    ("batch", "processes", "sizes"), [(2, 3, "to 3"), (13, 4, "to 12 or 16"), (1, 2, "to 2")]
)
def test_a_batch_that_has_no_equal_shares_is_refused(batch, processes, sizes):
    """nnU-Net gathers (images, classes) over the ranks, which must be of one shape."""
    with pytest.raises(UserError, match=f"-num_gpus {processes} .*{sizes}$"):
        checks.check_batch(batch, processes)


def test_devices_for_several_processes(monkeypatch):
    checks.check_device("cpu", 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match="mps has one device"):
        checks.check_device("mps", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    checks.check_device("cuda", 2)
    with pytest.raises(UserError, match="3 processes on this machine"):
        checks.check_device("cuda", 3)


def test_under_torchrun_the_devices_of_this_machine_are_counted(rank, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    checks.check_device("cuda", 8)


def refusal(store, error):
    with ranks._errors_once(store):
        raise error


def test_of_all_ranks_one_says_what_is_wrong():
    store = torch.distributed.HashStore()
    with pytest.raises(UserError, match="first"):
        refusal(store, UserError("first"))
    with pytest.raises(SystemExit) as caught:
        refusal(store, UserError("second"))
    assert caught.value.code == 2
    assert store.get("error") == b"first"


def test_an_error_is_there_before_a_rank_ends_because_another_says_it():
    """On a busy machine the second ended, and the launcher, before the first had written it."""
    found = []

    class Store(torch.distributed.HashStore):
        def add(self, key, number):
            found.append(self.check(["error"]))
            return super().add(key, number)

    with pytest.raises(UserError, match="first"):
        refusal(Store(), UserError("first"))
    assert found == [True]


def test_the_loss_of_a_process_is_told_from_other_errors(rank, monkeypatch):
    monkeypatch.setattr(ranks, "_LAUNCHERS_TURN", 0)
    gloo = "[/x/gloo/transport/tcp/pair.cc:5] Connection closed by peer [10.0.0.1]:9. Check logs"
    with pytest.raises(
        UserError, match=r"rank 5 on .* \(Connection closed by peer \[10.0.0.1\]:9\)"
    ):
        refusal(torch.distributed.HashStore(), RuntimeError(gloo))
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        refusal(torch.distributed.HashStore(), RuntimeError("shapes differ"))


def test_what_rank_0_refuses_ends_the_others(monkeypatch):
    def prepare():
        raise UserError("no such config")

    store = torch.distributed.HashStore()
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="no such config"):
        ranks._from_first_rank(store, prepare)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as caught:
        ranks._from_first_rank(store, prepare)
    assert caught.value.code == 2


def test_what_rank_0_prepared_reaches_the_others(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setenv("RANK", "0")
    assert list(ranks._from_first_rank(store, lambda: ("data", "plans"))) == ["data", "plans"]
    monkeypatch.setenv("RANK", "1")
    assert ranks._from_first_rank(store, None) == ["data", "plans"]


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
@pytest.mark.parametrize("kind", ["plain", "deep"])
def test_two_machines_train_as_one_process_does(kind, on_two_machines, two_ranks, tmp_path):
    """With AdamW, nnU-Net's loss, and for "deep" all outputs of deep supervision."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):  # which it sets
            patch.setenv(f"nnUNet_{name}", "")
        losses, weights, before, _ = two_ranks.train(
            tmp_path, "unetr", kind == "deep", **two_ranks.NARROW
        )
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
