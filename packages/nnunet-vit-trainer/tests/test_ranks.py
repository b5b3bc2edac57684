"""One of several processes: its device, its share, what it says and what it hears."""

import pytest
import torch
from torch import nn

from nnunet_vit_trainer.launch import checks, ranks, run
from nnunet_vit_trainer.training import group
from vit_backbone import UserError


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
