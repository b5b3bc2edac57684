"""What a disk refuses, and data that are gone, are told in one line, and what was there stays."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from nnunet_vit_trainer.checkpoints import content
from nnunet_vit_trainer.training.shortage.disk import (
    check_writable,
    disk_in_one_line,
    missing_data,
    refusal,
)
from vit_backbone import UserError

resource = pytest.importorskip("resource", reason="not on Windows")


def data_of(folder, cases=3):
    folder.mkdir()
    for case in range(cases):
        for ending in (".pkl", ".b2nd", "_seg.b2nd"):
            (folder / f"case{case}{ending}").touch()
    return folder


@pytest.fixture
def data(tmp_path):
    return data_of(tmp_path / "data")


def raised_in(data, error, cases=3):
    with pytest.raises(Exception) as caught, disk_in_one_line(data.parent, data, cases):  # noqa: PT011
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EROFS, "let it be written"),
        (errno.EACCES, "let it be written"),
        (errno.EIO, "disk"),
    ],
)
def test_what_a_disk_refuses_is_one_line(number, remedy, data):
    error = OSError(number, os.strerror(number), "results/checkpoint_latest.pth")
    said = str(raised_in(data, error))
    assert said.startswith(f"results/checkpoint_latest.pth: {os.strerror(number)}; ")
    assert remedy in said
    assert "--c" in said


def test_an_error_that_names_no_file_tells_the_folder(data):
    said = raised_in(data, OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(said, UserError)
    assert f"a file of {data.parent}: No space left on device" in str(said)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        OSError(errno.ECONNREFUSED, "refused"),
        FileNotFoundError("of a reader"),
    ],
)
def test_other_errors_stay_as_they_are(error, data):
    assert raised_in(data, error) is error


@pytest.mark.parametrize("gone", ["case1.b2nd", "case1_seg.b2nd", "case1.pkl"])
def test_data_that_are_gone_are_told_whatever_the_reader_says(gone, data):
    (data / gone).unlink()
    said = raised_in(data, RuntimeError("blosc2_schunk_open_offset_udio returned NULL"))
    assert isinstance(said, UserError)
    assert f"1 of 3 cases of {data} are gone" in str(said)


def test_a_folder_of_data_that_is_gone_is_told(data):
    data.rename(data.with_name("elsewhere"))
    assert f"{data}: No such file or directory; put" in str(raised_in(data, ValueError("a reader")))


def test_data_are_all_there_in_both_forms_that_nnunet_writes(data, tmp_path):
    assert missing_data(data, 3) is None
    assert missing_data(data, None) is None  # plans of 0.1.0 do not say how many
    for file in data.glob("*.b2nd"):
        file.unlink()
    for case in range(3):
        (data / f"case{case}.npz").touch()
    assert missing_data(data, 3) is None


def test_user_errors_pass(data):
    error = UserError("mend it")
    (data / "case1.pkl").unlink()
    assert raised_in(data, error) is error


@pytest.fixture
def small_files():
    """The system refuses files of more than 100 kB, in the midst of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_the_disk_refuses_leaves_the_one_before(tmp_path, small_files):
    file = tmp_path / "checkpoint_latest.pth"
    content.write_atomically({"epoch": 1}, file)
    with pytest.raises(OSError, match="File too large") as caught:
        content.write_atomically({"epoch": 2, "weights": torch.zeros(50_000)}, file)
    assert caught.value.filename == str(file)
    assert torch.load(file) == {"epoch": 1}
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_is_full_is_told_by_its_own_words(monkeypatch):
    """torch's writer says "unexpected pos 64 vs 0"."""
    monkeypatch.setattr(content, "written_whole", lambda _: nullcontext(Path("/dev/full")))
    with pytest.raises(OSError, match="No space left on device") as caught:
        content.write_atomically({"weights": torch.zeros(50_000)}, Path("checkpoint_latest.pth"))
    assert caught.value.filename == "checkpoint_latest.pth"


def test_other_errors_of_a_save_stay_as_they_are(tmp_path, monkeypatch):
    def save(*_):
        raise RuntimeError("not the disk's")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="not the disk's"):
        content.write_atomically({}, tmp_path / "checkpoint_latest.pth")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written; permissions do not bind root."""
    root = os.geteuid() == 0
    tmp_path.chmod(0o555)
    if root:
        os.seteuid(65534)
    yield tmp_path
    if root:
        os.seteuid(0)
    tmp_path.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_told_before_the_run(read_only):
    with pytest.raises(PermissionError) as caught:
        check_writable(read_only / "fold_0")
    assert "let it be written" in refusal(caught.value, read_only)


def test_a_folder_that_can_be_written_is_left_empty(tmp_path):
    check_writable(tmp_path / "results" / "fold_0")
    assert not list((tmp_path / "results" / "fold_0").iterdir())
