"""Files that are written whole or not at all."""

import os
import stat
import time

import pytest
import torch

from nnunet_vit_trainer.checkpoints.content import write_atomically
from nnunet_vit_trainer.checkpoints.files import written_whole


def names(folder):
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_file_that_was_there_and_nothing_else(error, tmp_path):
    file = tmp_path / "plans.json"
    file.write_text("before")

    def write():
        with written_whole(file) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert file.read_text() == "before"
    assert names(tmp_path) == {"plans.json"}


def test_a_checkpoint_that_cannot_be_saved_leaves_the_one_that_was_there_alone(tmp_path):
    file = tmp_path / "checkpoint_latest.pth"
    write_atomically({"epoch": 1}, file)
    with pytest.raises(AttributeError):
        write_atomically({"epoch": 2, "unpicklable": lambda: 0}, file)
    assert torch.load(file) == {"epoch": 1}
    assert names(tmp_path) == {"checkpoint_latest.pth"}


def test_two_writers_at_once_do_not_meet(tmp_path):
    file = tmp_path / "plans.json"
    with written_whole(file) as first, written_whole(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"  # it was the last to end
    assert names(tmp_path) == {"plans.json"}


def test_the_file_is_on_the_disk_before_its_name_is_and_then_the_folder(tmp_path, monkeypatch):
    file, done = tmp_path / "plans.json", []

    def flush(number):
        done.append((stat.S_ISDIR(os.fstat(number).st_mode), file.exists()))

    monkeypatch.setattr(os, "fsync", flush)
    with written_whole(file) as unfinished:
        unfinished.write_text("whole")
    assert done == [(False, False), (True, True)]


def test_a_system_that_cannot_flush_folders_is_enough(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("a folder")

    monkeypatch.setattr(os, "open", refuse)
    with written_whole(tmp_path / "a") as unfinished:
        unfinished.write_text("whole")
    assert names(tmp_path) == {"a"}


def test_what_killed_writers_left_goes_with_a_later_write(tmp_path):
    """But not what somebody may be writing now, or what is another file's."""
    old, new, other = (tmp_path / n for n in ("a[1].0.tmp", "a[1].1.tmp", "a1.2.tmp"))
    for file in (old, new, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (time.time() - 2 * 3600,) * 2)
    with written_whole(tmp_path / "a[1]") as unfinished:
        unfinished.touch()
    assert names(tmp_path) == {"a[1]", "a[1].1.tmp", "a1.2.tmp"}
