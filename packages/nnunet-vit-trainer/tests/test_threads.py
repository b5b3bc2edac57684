"""Data are loaded in one thread, without a look at the process's memory map for each batch."""

import threadpoolctl
from nnunetv2.training.dataloading import data_loader

from nnunet_vit_trainer.training.threads import FindsLibrariesOnce


def threads():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


def test_a_batch_is_loaded_in_one_thread_and_the_next_knows_the_libraries(monkeypatch):
    monkeypatch.setattr(data_loader, "threadpool_limits", data_loader.threadpool_limits)
    before = threads()
    assert FindsLibrariesOnce()(image=1) == {"image": 1}
    with data_loader.threadpool_limits(limits=1, user_api=None):
        within = threads()
    assert {*within.values()} == {1}
    assert threads() == before
    scanned = []
    monkeypatch.setattr(
        threadpoolctl.ThreadpoolController, "_load_libraries", lambda self: scanned.append(self)
    )
    with data_loader.threadpool_limits(limits=1, user_api=None):
        assert not scanned
