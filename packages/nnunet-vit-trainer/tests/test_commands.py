"""How commands end, whatever terminal and disk are, and what they refuse before the work."""

import errno
import io
import sys
import tempfile

import pytest

from nnunet_vit_trainer.commands.errors import one_line_errors
from nnunet_vit_trainer.commands.import_images import import_images
from nnunet_vit_trainer.commands.info import info
from nnunet_vit_trainer.commands.report import _folds


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a command as a shell does, and return its exit code and what it said on stderr."""

    def call(command, *words):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
        try:
            command()
        except SystemExit as ended:
            return ended.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


def test_ctrl_c_ends_a_command_in_one_line(call):
    @one_line_errors
    def command():
        raise KeyboardInterrupt

    assert call(command) == (130, "x: interrupted\n")


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.EFBIG]
)
def test_what_a_disk_refuses_is_one_line(call, number):
    @one_line_errors
    def command():
        raise OSError(number, "No", "/a/file")

    assert call(command) == (2, f"x: [Errno {number}] No: '/a/file'\n")


def test_where_no_temporary_file_can_be_written_the_remedy_is_told(call, monkeypatch, tmp_path):
    """As on a full or a read-only disk, where the imports already ask for one."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    code, said = call(one_line_errors(tempfile.gettempdir))
    assert code == 2
    assert said.startswith("x: No usable temporary directory found in ['")
    assert said.endswith("; free some space, or set TMPDIR to a folder that can be written\n")


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("nnUNet_n_proc_DA", "many", 2),
        ("nnUNet_n_proc_DA", "-1", 2),
        ("nnUNet_n_proc_DA", "0", 0),
        ("nnUNet_def_n_proc", "", 2),
        ("nnUNet_def_n_proc", "0", 2),
        ("nnUNet_def_n_proc", " 3 ", 0),
    ],
)
def test_a_number_of_processes_that_is_none_is_refused(call, monkeypatch, name, given, code):
    monkeypatch.setenv(name, given)
    ended, said = call(one_line_errors(lambda: None))
    assert ended == code
    assert said.startswith(f"x: {name}='{given}': a number of processes" if code else "")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No"), OSError("of a library")])
def test_what_may_be_a_programs_fault_keeps_its_traceback(call, error):
    @one_line_errors
    def command():
        raise error

    with pytest.raises(OSError, match=r"No|library"):
        call(command)


def test_a_terminal_that_does_not_know_a_letter_gets_it_in_figures(call, monkeypatch):
    @one_line_errors
    def command():
        sys.stdout.write("Fälle: 0.8 ±0.1\n")

    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert call(command)[0] == 0
    out.flush()
    assert out.buffer.getvalue() == b"F\\xe4lle: 0.8 \\xb10.1\n"


def test_a_name_that_no_disk_takes_is_one_line(call):
    code, said = call(info, "x" * 5000)
    assert code == 2
    assert "no such file, and no shipped config" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "A", "--spacing", "1", "1", "far"], "argument --spacing: far is no distance in mm"),
        (["-o", "out", "--threshold", "0"], "leave --threshold away"),
        (["-o", "out", "--check"], "leave --check away"),
    ],
)
def test_options_of_an_import_that_cannot_be_meant(call, words, said, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    code, line = call(import_images, tmp_path, "-d", 1, *words)
    assert code == 2
    assert said in line


def test_a_report_is_of_folds_each_once_and_not_of_folders_beside_them(tmp_path):
    for name in ("fold_0", "fold_10", "fold_2", "fold_0_backup"):
        (tmp_path / name / "validation").mkdir(parents=True)
        (tmp_path / name / "validation" / "summary.json").touch()
    assert [f.name for f in _folds(tmp_path, None)] == ["fold_0", "fold_2", "fold_10"]
    assert [f.name for f in _folds(tmp_path, ["2", "0", "2"])] == ["fold_2", "fold_0"]
