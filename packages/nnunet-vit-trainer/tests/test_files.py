"""Files that are written whole or not at all."""

import json
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nnunet_vit_trainer.checkpoints import files
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


def test_a_links_target_is_written_and_the_link_stays(tmp_path):
    target, link = tmp_path / "there" / "a.csv", tmp_path / "b.csv"
    target.parent.mkdir()
    link.symlink_to(target)
    for content in ("of a new file", "of one that is there"):
        with written_whole(link) as unfinished:
            unfinished.write_text(content)
        assert link.is_symlink()
        assert target.read_text() == content
        assert names(tmp_path) == {"there", "b.csv"}
        assert names(target.parent) == {"a.csv"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
def test_what_is_no_regular_file_is_written_into(tmp_path):
    """As /dev/stdout and /dev/null, which a rename would replace."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with written_whole(link) as unfinished:
            unfinished.write_text("whole")
        assert os.read(reader, 9) == b"whole"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == {"pipe", "link"}


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


def test_nnunets_json_is_written_whole_meanwhile(tmp_path):
    """As save_json is called: in the middle of it there is the file that was."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet

    from nnunet_vit_trainer.checkpoints.nnunet_json import json_written_whole

    file, save = tmp_path / "plans.json", nnunet.save_json
    file.write_text("before")
    with pytest.raises(TypeError), json_written_whole():
        nnunet.save_json({"a": 1, "b": object()}, str(file), sort_keys=False)
    assert file.read_text() == "before"
    assert names(tmp_path) == {"plans.json"}
    with json_written_whole():
        nnunet.save_json({"b": 1, "a": 2}, str(file), sort_keys=False)
    assert nnunet.save_json is save
    assert file.read_text() == json.dumps({"b": 1, "a": 2}, indent=4)


def test_a_system_that_cannot_flush_folders_is_enough(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("a folder")

    monkeypatch.setattr(os, "open", refuse)
    with written_whole(tmp_path / "a") as unfinished:
        unfinished.write_text("whole")
    assert names(tmp_path) == {"a"}


def write(file):
    with written_whole(file) as unfinished:
        unfinished.write_text("whole")


HALF = """
with written_whole(file) as unfinished:
    unfinished.write_text("half")
    print(flush=True)
    time.sleep(3600)
"""
FOR_EVER = """
for number in range(int(sys.argv[2]), 1_000_000):
    with written_whole(file) as unfinished:
        unfinished.write_text(f"{number} " * 200_000)
    print(number, flush=True)
"""


def started(code, *arguments):
    """Start a writer in another process, and wait until it says something."""
    begin = "import sys, time; from pathlib import Path\n"
    begin += "from nnunet_vit_trainer.checkpoints.files import written_whole\n"
    begin += "file = Path(sys.argv[1])\n"
    command = [sys.executable, "-W", "ignore", "-c", begin + code, *map(str, arguments)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return writer, writer.stdout.readline()


def test_a_file_survives_kills_of_its_writers(tmp_path):
    """It is whole, and no older than what a writer said; what is left goes with a later write."""
    file, chance, last, half = tmp_path / "plans.json", random.Random(0), 0, 0
    for _ in range(12):
        writer, said = started(FOR_EVER, file, last + 1)
        assert int(said) == last + 1
        assert all(f"-{writer.pid}-" in name for name in names(tmp_path) - {"plans.json"})
        time.sleep(chance.uniform(0, 0.05))
        writer.kill()
        last = int((said + writer.communicate()[0]).split()[-1])
        found = file.read_text().split()
        assert len(found) == 200_000
        assert len(set(found)) == 1
        assert int(found[0]) in (last, last + 1)
        last = int(found[0])
        half += len(names(tmp_path)) > 1
    assert half > 0  # were killed in the middle of it


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    """But not before it was killed; a zombie is dead."""
    file = tmp_path / "a[1]"
    writer, _ = started(HALF, file)
    with writer:
        (unfinished,) = tmp_path.iterdir()
        write(file)
        assert unfinished.exists()
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # leaves the zombie
        write(file)
        assert names(tmp_path) == {"a[1]"}


def test_what_writers_of_other_places_left_goes_an_hour_later(tmp_path):
    """A process id means nothing there, nor does that of an earlier process of the same number."""
    own, start = files._place(), files._start_of(os.getpid())
    young, old, of_0_1_0, reused, mine = left = [
        tmp_path / f"a.{owner}.tmp"
        for owner in (
            f"{'0' * 12}-{os.getpid()}-{start}-00000000",
            f"{'0' * 12}-{os.getpid()}-{start}-00000001",
            "0" * 32,
            f"{own}-{os.getpid()}-{start + 1}-00000000",
            f"{own}-{os.getpid()}-{start}-00000000",
        )
    ]
    other = tmp_path / "a1.0.tmp"
    for file in (*left, other):
        file.touch()
    for file in (old, of_0_1_0, other):
        os.utime(file, (time.time() - 2 * 3600,) * 2)
    write(tmp_path / "a")
    stays = {"a", young.name, mine.name, other.name}
    assert names(tmp_path) == (stays if start else stays | {reused.name})


def test_where_there_is_no_proc_the_hour_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_start_of", lambda pid: 0)
    old, young = (tmp_path / f"a.{files._place()}-1-0-{i:08}.tmp" for i in range(2))
    for file in (old, young):
        file.touch()
    os.utime(old, (time.time() - 2 * 3600,) * 2)
    write(tmp_path / "a")
    assert names(tmp_path) == {"a", young.name}
