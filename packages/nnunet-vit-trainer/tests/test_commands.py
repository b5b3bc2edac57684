"""How commands end, whatever terminal and disk are, and what they refuse before the work."""

import errno
import io
import sys

import pytest

from nnunet_vit_trainer.commands.errors import one_line_errors


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


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG])
def test_what_a_disk_refuses_is_one_line(call, number):
    @one_line_errors
    def command():
        raise OSError(number, "No", "/a/file")

    assert call(command) == (2, f"x: [Errno {number}] No: '/a/file'\n")


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
