"""What a person sees of a training, on a terminal of 80 columns, in a pipe, and with --quiet."""

import math
import re
import sys
from io import StringIO

import pytest
import torch
from rich.console import Console

from nnunet_vit_trainer.launch import fold
from nnunet_vit_trainer.launch.request import Request
from nnunet_vit_trainer.training.oversight import progress
from nnunet_vit_trainer.training.oversight.progress import (
    SHOWN,
    EpochDisplay,
    Figures,
    duration,
    is_shown,
    shown_on,
)

LINES = {  # as nnU-Net's trainer and ours call print_to_log_file
    "epoch": ("Epoch 3",),
    "group": ("  head, no decay: 0.001",),
    "dice": ("Pseudo dice", [0.1]),
    "empty": ("",),
    "hint": ("The validation Dice has not risen by 0.001 in 10 epochs",),
    "warning": ("WARNING: no foreground",),
    "configuration": (
        "\nThis is the configuration used by this training:\nConfiguration name: 2d\n",
    ),
    "plans": ("These are the global plan.json settings:\n", {"plans_name": "nnUNetPlans"}),
    "drawing": ("Unable to plot network architecture:",),
    "why no drawing": (ModuleNotFoundError("No module named 'hiddenlayer'"),),
}


@pytest.fixture
def shows():
    before = SHOWN.get()
    yield SHOWN.set
    SHOWN.set(before)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def terminal(width=80):
    return Console(file=StringIO(), force_terminal=True, width=width, color_system=None)


@pytest.mark.parametrize(
    ("shown", "seen"),
    [("all", set(LINES)), ("line", {"hint", "warning"}), ("warnings", {"warning"})],
)
def test_what_goes_to_the_console(shown, seen, shows):
    shows(shown)
    assert {name for name, line in LINES.items() if is_shown(line)} == seen


def test_a_pipe_gets_everything_a_terminal_a_line_and_quiet_neither():
    pipe = Console(file=StringIO())
    assert [shown_on(pipe, False), shown_on(terminal(), False)] == ["all", "line"]
    assert [shown_on(pipe, True), shown_on(terminal(), True)] == ["warnings", "warnings"]


def test_quiet_leaves_warnings_of_what_nnunet_prints_beside_its_log(tmp_path, monkeypatch, capsys):
    def trains(*_):
        print("worker", 0, "oversample", 0.0)  # noqa: T201
        print("2026-11-28:", "WARNING: no foreground\nin 3 cases", "")  # noqa: T201
        print()  # noqa: T201
        sys.stdout.flush()
        assert sys.stdout.encoding
        print("WARNING", end="")  # noqa: T201

    monkeypatch.setattr(fold, "_train_fold", trains)
    plans = {"configurations": {"2d": {"data_identifier": "data"}}, "vit": {}}
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    said = []
    for quiet in (True, False):
        request = Request("Dataset001_A", "2d", 0, "my.yaml", quiet=quiet)
        fold.train_fold(request, "Dataset001_A", plans, str(tmp_path))
        said.append(capsys.readouterr().out)
    assert said[0] == "2026-11-28: WARNING: no foreground\nin 3 cases \nWARNING"
    assert said[1] == f"worker 0 oversample 0.0\n{said[0][:-7]}\nWARNING"


def figures(classes, epoch=12, num_epochs=1000):
    return Figures(epoch, num_epochs, -0.4321, -0.4012, 0.00098, [0.5] * (classes - 1) + [0.25])


def test_an_epoch_says_where_its_time_went(clock, shows):
    shows("all")
    display = EpochDisplay(torch.device("cpu"), images_per_step=4)
    display.begin(12, 1000, 2)
    for waited, took in ((3.0, 1.0), (0.0, 4.0)):
        clock[0] += waited
        display.begin_step()
        clock[0] += took
        display.end_step(-0.4)
    clock[0] += 2.0
    line = display.end(figures(2))
    # 8 images in 8 s, of which 3 s waited; 987 epochs of 10 s are left.
    assert "loss -0.4321, validation -0.4012, rate 0.00098, Dice 0.375 (0.50 0.25)" in line
    assert "1 img/s" in line
    assert "data 38%, 10.0 s, 2 h 44 min left" in line


@pytest.mark.parametrize("classes", [1, 3, 5, 20])
def test_the_lines_fit_a_terminal_of_80_columns(classes, clock, shows):
    shows("line")
    console = terminal()
    display = EpochDisplay(torch.device("cpu"), images_per_step=128, console=console)
    for epoch in (0, 999):
        display.begin(epoch, 1000, 300)
        for _ in range(300):
            clock[0] += 0.25
            display.begin_step()
            clock[0] += 4.0
            display.end_step(-0.4321)
        display.bar.refresh()
        display.end(figures(classes, epoch))
    plain = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", console.file.getvalue())
    written = plain.replace("\r", "\n").splitlines()
    assert all(len(line) <= 80 for line in written), written
    assert any("300/300" in line for line in written)
    lasting = [line for line in written if "loss -0.432 Dice" in line]
    assert len(lasting) == 2
    assert lasting[0].endswith(" 21 min, 353 h 49 min left")
    assert lasting[1].endswith(" 21 min, 0 s left")


def test_nobody_is_left_with_a_terminal_without_cursor(shows):
    shows("line")
    console = terminal()
    display = EpochDisplay(torch.device("cpu"), 1, console)
    display.begin(0, 2, 5)
    display.close()
    display.close()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    written = console.file.getvalue()
    assert written.count(hidden) == written.count(shown) == 1


def test_a_class_that_is_nowhere_has_no_dice():
    assert Figures(0, 1, 0, 0, 0, [math.nan]).dice_text() == "Dice -"
    assert Figures(0, 1, 0, 0, 0, [math.nan, 0.5]).dice_text() == "Dice 0.500 (nan 0.50)"


def test_durations_are_rough():
    assert [duration(s) for s in (40, 99.6, 720, 33_100)] == [
        *("40 s", "100 s", "12 min", "9 h 12 min"),
    ]
