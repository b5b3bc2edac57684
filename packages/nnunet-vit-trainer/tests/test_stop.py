"""A run that a signal or a file ends early: what it saves, and that it goes on as if it had not."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from in_the_air import EPOCHS, STEPS, in_the_air, make_trainer, seed

from nnunet_vit_trainer.checkpoints.newest import newest_checkpoint
from nnunet_vit_trainer.commands import train as command
from nnunet_vit_trainer.launch.checks import check_stop_file
from nnunet_vit_trainer.launch.fold import _load_best
from nnunet_vit_trainer.training import from_plans
from nnunet_vit_trainer.training.ending import stop
from nnunet_vit_trainer.training.ending.stop import Stopped, asked_by, signals_stop, signals_wait
from nnunet_vit_trainer.training.oversight.watch import plateau_hint
from vit_backbone import UserError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 here")

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 0}


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_where_no_steps_are_taken_a_signal_ends_at_once(number):
    with signals_stop(), pytest.raises(Stopped) as caught:
        send(number)
    assert caught.value.code == CODES[number]
    assert not caught.value.saved


def test_ctrl_c_where_no_steps_are_taken_is_an_interrupt():
    with signals_stop(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_the_first_signal_waits_and_is_heard_once():
    heard = []
    before = {number: signal.getsignal(number) for number in CODES}
    with signals_stop(heard.append), signals_stop():
        signals_wait()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            send(number)
        assert asked_by() == signal.SIGTERM
    assert heard == [signal.SIGTERM]
    assert asked_by() == 0
    assert before == {number: signal.getsignal(number) for number in CODES}


@pytest.mark.parametrize("first", list(CODES))
def test_a_second_ctrl_c_ends_at_once(first):
    with signals_stop():
        signals_wait()
        send(first)
        if first != signal.SIGINT:
            send(signal.SIGINT)
        assert asked_by() == first
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_run_in_a_notebook_does_not_make_a_later_commands_signals_wait():
    signals_wait()
    with signals_stop(), pytest.raises(Stopped) as caught:
        send(signal.SIGTERM)
    assert not caught.value.has_checkpoint
    with signals_stop():
        signals_wait()
        signals_wait(False)  # after the last step
        with pytest.raises(Stopped) as caught:
            send(signal.SIGTERM)
    assert caught.value.has_checkpoint


@pytest.fixture
def home(tmp_path):
    with in_the_air(tmp_path):
        yield tmp_path


def signal_at(trainer, epoch, step, number, kind="train_step"):
    """Let a step of an epoch send a signal."""
    take, taken = getattr(trainer, kind), []

    def wrapped(batch):
        if trainer.current_epoch == epoch:
            taken.append(1)
            if len(taken) == step:
                send(number)
        return take(batch)

    setattr(trainer, kind, wrapped)


def run(epoch=None, step=None, number=signal.SIGUSR1, kind="train_step", resumes=False, **train):
    """Train, or until a signal, and return the trainer and what ended it."""
    trainer = make_trainer(**train)
    if resumes:
        trainer.load_checkpoint(str(newest_checkpoint(output(trainer))))
    if epoch is not None:
        signal_at(trainer, epoch, step, number, kind)
    try:
        with signals_stop():
            trainer.run_training()
    except Stopped as stopped:
        return trainer, stopped
    return trainer, None


def output(trainer):
    return Path(trainer.output_folder)


def read(folder, name):
    return torch.load(folder / f"checkpoint_{name}.pth", weights_only=False)


@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_saves_after_the_step_and_ends_with_its_code(number, home):
    trainer, stopped = run(1, 2, number)
    assert (stopped.code, stopped.saved) == (CODES[number], True)
    saved = read(output(trainer), "latest")
    assert saved["current_epoch"] == 1
    assert {len(values) for values in saved["logging"].values()} == {1}
    assert len(saved["vit"]["losses"]) == 2
    weights = trainer.network.state_dict()
    assert all(torch.equal(weights[n], w) for n, w in saved["network_weights"].items())
    assert not list(home.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("epoch", "step", "kind"),
    [
        (0, 1, "train_step"),
        (1, 2, "train_step"),
        (1, STEPS, "train_step"),
        (EPOCHS - 1, STEPS, "train_step"),
        (0, 2, "validation_step"),
    ],
)
def test_a_run_that_is_stopped_in_an_epoch_goes_on_as_if_it_had_not_been(
    epoch, step, kind, home, tmp_path_factory, capsys
):
    recipe = {"ema": 0.9, "warmup_epochs": 1}
    seed()
    whole, _ = run(**recipe)
    with in_the_air(tmp_path_factory.mktemp("stopped")):
        seed()
        _, stopped = run(epoch, step, kind=kind, **recipe)
        assert stopped.saved
        torch.rand(7)
        capsys.readouterr()
        resumed, _ = run(resumes=True, **recipe)
        one, two = (read(output(trainer), "final") for trainer in (whole, resumed))
    assert "logging issue" not in capsys.readouterr().out  # nnU-Net's, of lists too long
    for name, weight in one["network_weights"].items():
        assert torch.equal(weight, two["network_weights"][name]), name
    for name in ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs"):
        assert one["logging"][name] == two["logging"][name], name
    assert one["current_epoch"] == two["current_epoch"] == EPOCHS
    assert one["vit"]["losses"] == two["vit"]["losses"] == []
    assert not (output(resumed) / "checkpoint_latest.pth").exists()


def test_in_the_validation_of_an_epoch_the_weights_that_train_are_saved(home):
    """The network holds the average then."""
    trainer = make_trainer(ema=0.9)
    signal_at(trainer, 1, 1, signal.SIGUSR1, "validation_step")
    begin, weights, average = trainer.on_validation_epoch_start, {}, {}

    def keep_and_begin():
        weights.update({n: w.clone() for n, w in trainer.network.state_dict().items()})
        average.update({n: w.clone() for n, w in trainer.average.average.items()})
        begin()

    trainer.on_validation_epoch_start = keep_and_begin
    with signals_stop(), pytest.raises(Stopped):
        trainer.run_training()
    saved = read(output(trainer), "latest")
    assert (saved["current_epoch"], len(saved["vit"]["losses"])) == (1, STEPS)
    for name, weight in saved["vit"]["average"]["weights"].items():
        assert torch.equal(weight, weights[name])
        assert torch.equal(saved["network_weights"][name], average[name])
    assert any(not torch.equal(weights[name], average[name]) for name in average)
    resumed, _ = run(resumes=True, ema=0.9)
    log = max(output(resumed).glob("training_log*.txt")).read_text()
    assert "Epoch 1" in log
    assert read(output(resumed), "final")["current_epoch"] == EPOCHS


def test_after_the_last_step_the_final_checkpoint_is_written_and_the_validation_left(home):
    trainer = make_trainer()
    summary = output(trainer) / "validation" / "summary.json"
    summary.parent.mkdir()
    summary.touch()  # of a training before, or of fewer epochs: not of what is written now
    finish = trainer.on_epoch_end

    def finish_and_send():
        finish()
        if trainer.current_epoch == EPOCHS:
            send(signal.SIGTERM)

    trainer.on_epoch_end = finish_and_send
    with signals_stop(), pytest.raises(Stopped) as caught:
        trainer.run_training()
    assert caught.value.saved
    assert read(output(trainer), "final")["current_epoch"] == EPOCHS
    assert not summary.exists()


def test_without_checkpoints_nothing_is_said_to_be_saved(home):
    trainer = make_trainer()
    trainer.disable_checkpointing = True
    signal_at(trainer, 0, 1, signal.SIGTERM)
    with signals_stop(), pytest.raises(Stopped) as caught:
        trainer.run_training()
    assert not caught.value.saved
    assert not list(output(trainer).glob("*.pth"))


def test_what_is_newest_is_continued(home):
    """A finished run that was given more epochs, and stopped, has an older checkpoint_final."""
    trainer, _ = run()
    folder = output(trainer)
    assert newest_checkpoint(folder).name == "checkpoint_final.pth"
    run(EPOCHS, 1, resumes=True, num_epochs=EPOCHS + 2)
    assert newest_checkpoint(folder).name == "checkpoint_latest.pth"
    run(resumes=True, num_epochs=EPOCHS + 2)
    content = read(folder, "final")
    assert content["current_epoch"] == EPOCHS + 2
    assert content["init_args"]["plans"]["vit"]["train"]["num_epochs"] == EPOCHS + 2
    (folder / "checkpoint_best.pth").write_bytes(b"PK half")
    with pytest.raises(UserError, match=r"checkpoint_best\.pth cannot be read .*move it away"):
        newest_checkpoint(folder)


def test_a_seeded_run_that_is_stopped_in_an_epoch_does_not_see_its_first_batches_again(
    home, monkeypatch
):
    """Data workers' numbers are not restored: they begin anew, by the numbers of the start."""
    given = []
    monkeypatch.setattr(from_plans, "seed_generators", lambda *numbers: given.append(numbers))
    run(0, 2, seed=5)
    run(1, 1, resumes=True, seed=5)
    run(resumes=True, seed=5)
    assert given == [(5,), (5, 0, 0), (5,), (5, 0, 0, 2), (5,), (5, 0, 1, 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["network_weights"].popitem(), r"Missing key\(s\)"),
        (lambda content: content["network_weights"].update(more=torch.ones(1)), "Unexpected key"),
        (lambda content: content["optimizer_state"]["param_groups"].pop(), "number of parameter"),
        (lambda content: content.pop("optimizer_state"), "optimizer_state is missing"),
    ],
)
def test_a_checkpoint_of_another_network_or_for_prediction_is_one_line(change, said, home):
    trainer, _ = run(1, 1)
    file = output(trainer) / "checkpoint_latest.pth"
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)
    with pytest.raises(UserError, match=rf"checkpoint_latest\.pth .*{said}"):
        run(resumes=True)


@pytest.mark.parametrize(
    ("epochs", "began", "best"), [(1, 7.0, 0.1), (2, 7.0, 0.5), (2, 6.0, None), (None, None, None)]
)
def test_what_is_better_than_the_best_checkpoint_that_is_there_replaces_it(
    epochs, began, best, home
):
    """nnU-Net writes latest, then best: a kill between them leaves an older best, or none."""
    trainer, _ = run(1, 1)
    file = output(trainer) / "checkpoint_latest.pth"
    content = torch.load(file, weights_only=False)
    content["current_epoch"], content["vit"]["began"] = 2, 7.0
    content["logging"] = {name: values * 2 for name, values in content["logging"].items()}
    content["logging"]["ema_fg_dice"] = [0.1, 0.5]
    torch.save(content, file)
    file.with_name("checkpoint_best.pth").unlink()
    if epochs:
        content["current_epoch"], content["vit"]["began"] = epochs, began
        torch.save(content, file.with_name("checkpoint_best.pth"))
    resumed = make_trainer()
    resumed.load_checkpoint(str(file))
    resumed.on_train_start()
    assert resumed._best_ema == best


def test_validating_the_best_keeps_the_log_of_the_whole_training(home):
    """The report's curves ended where the best checkpoint was written."""
    trainer, _ = run()
    file = output(trainer) / "checkpoint_best.pth"
    best = read(output(trainer), "best")
    best["logging"] = {name: values[:1] for name, values in best["logging"].items()}
    best["network_weights"] = {n: w + 1 for n, w in best["network_weights"].items()}
    torch.save(best, file)
    _load_best(trainer)
    assert {len(values) for values in trainer.logger.get_checkpoint().values()} == {EPOCHS}
    name = "head.seg_layers.0.weight"
    assert torch.equal(trainer.network.state_dict()[name], best["network_weights"][name])


def test_a_training_that_was_begun_anew_and_stopped_is_continued_and_not_the_one_before(home):
    """The finished one holds more epochs, and its checkpoint_final lies there until the end."""
    trainer, _ = run()
    folder = output(trainer)
    first = read(folder, "final")["vit"]["began"]
    run(0, 1)
    assert newest_checkpoint(folder).name == "checkpoint_latest.pth"
    run(1, 1, resumes=True)
    assert read(folder, "final")["vit"]["began"] == first
    second = read(folder, "latest")["vit"]["began"]
    assert second > first
    run(resumes=True)
    assert newest_checkpoint(folder).name == "checkpoint_final.pth"
    assert read(folder, "final")["vit"]["began"] == second


def test_a_file_ends_the_run_after_the_epoch_as_a_finished_one(home):
    trainer = make_trainer(stop_file="enough")
    finish = trainer.on_validation_epoch_end

    def finish_and_touch(outputs):
        finish(outputs)
        if trainer.current_epoch == 1:
            (output(trainer) / "enough").touch()

    trainer.on_validation_epoch_end = finish_and_touch
    trainer.run_training()
    final = read(output(trainer), "final")
    assert final["current_epoch"] == 2
    assert {len(values) for values in final["logging"].values()} == {2}
    (log,) = output(trainer).glob("training_log*.txt")
    assert "enough is there, no epoch follows" in log.read_text()
    assert "Training done." in log.read_text()


def test_where_a_stop_file_lies(tmp_path):
    assert stop.stop_file_of("", tmp_path) is None
    assert stop.stop_file_of("enough", tmp_path) == tmp_path / "enough"
    assert stop.stop_file_of("/tmp/enough", tmp_path).as_posix() == "/tmp/enough"
    assert stop.stop_file_of("~/enough", tmp_path).is_absolute()
    assert not stop.is_there(stop.stop_file_of("no\0path", tmp_path))
    assert not stop.is_there(stop.stop_file_of("x" * 4096, tmp_path))


def test_a_stop_file_that_is_left_or_cannot_come_is_refused(tmp_path):
    check_stop_file("", tmp_path)
    check_stop_file("enough", tmp_path / "fold_0")  # which is made later
    check_stop_file(str(tmp_path / "enough"), tmp_path / "fold_0")
    for name, said in [("gone/enough", "no folder 'gone'"), (str(tmp_path), "it is a folder")]:
        with pytest.raises(UserError, match=said):
            check_stop_file(name, tmp_path)
    for name in ("progress.png", "checkpoint_best.pth", str(tmp_path / "training_log_1.txt")):
        with pytest.raises(UserError, match=r"a training writes .* itself"):
            check_stop_file(name, tmp_path)
    (tmp_path / "enough").touch()
    with pytest.raises(UserError, match=r"train\.stop_file: .*enough is there already.*--val"):
        check_stop_file("enough", tmp_path)


def test_a_dice_that_does_not_move_is_said_every_tenth_of_the_epochs():
    rising = [0.001 * i for i in range(1000)]
    flat = [0.5] * 1000
    late = [0.1] * 100 + [0.2] * 100 + [0.2005] * 100
    nothing = [float("nan")] * 1000
    unknown_first = [float("nan")] * 5 + rising
    said = {
        name: [n for n in range(1001) if plateau_hint(dice[:n], 1000) and n <= len(dice)]
        for name, dice in {
            "rising": rising,
            "flat": flat,
            "late": late,
            "no": nothing,
            "unknown first": unknown_first,
        }.items()
    }
    assert said["rising"] == said["unknown first"] == []
    assert said["flat"] == said["no"] == list(range(200, 1001, 100))
    assert said["late"] == [300]
    assert "has not risen by 0.001 in 100 epochs" in plateau_hint(flat[:200], 1000)
    assert [n for n in range(25) if plateau_hint(flat[:n], 24)] == [20]


def test_the_command_that_goes_on(monkeypatch):
    said = "nnUNetv2_train_vit 42 2d 0 --config 'my c.yaml' -p Plans --npz --c"
    words = ["42", "2d", "0", "--config", "my c.yaml", "-p", "Plans", "--npz"]
    for more, weights in (
        ([], None),
        (["--c"], None),
        (["-pretrained_weights", "w.pth"], "w.pth"),
        (["-pretrained_weights=w.pth"], "w.pth"),
    ):
        monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train_vit", *words, *more])
        stopped = Stopped(signal.SIGTERM, saved=True)
        line = command._how_to_go_on(stopped, weights)
        assert line == f"\nEnded by SIGTERM, what was trained is saved. Go on with\n  {said}"
    after_the_end = Stopped(signal.SIGUSR1, saved=False, has_checkpoint=True)
    assert command._how_to_go_on(after_the_end, "w.pth").endswith(f"Go on with\n  {said}")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    line = command._how_to_go_on(after_the_end, None)
    assert line.endswith("Start the same torchrun command again, with --c")


def test_what_is_stopped_before_its_first_checkpoint_begins_again(monkeypatch):
    """--c would go on with an earlier training of the fold."""
    at_the_start = Stopped(signal.SIGTERM, saved=False, has_checkpoint=False)
    words = ["42", "2d", "0", "--config", "my", "-pretrained_weights", "w.pth"]
    for given, ends in (
        (words, words),
        ([*words[:-2], "--c"], [*words[:-2], "--c"]),
        ([*words, "--disable_checkpointing"], [*words, "--disable_checkpointing"]),
    ):
        monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train_vit", *given])
        line = command._how_to_go_on(at_the_start, "w.pth")
        assert line.endswith(f"nnUNetv2_train_vit {' '.join(ends)}")
    in_validation = Stopped(signal.SIGTERM, saved=False, has_checkpoint=True)
    assert command._how_to_go_on(in_validation, "w.pth").endswith("--disable_checkpointing")
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train_vit", *words])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    line = command._how_to_go_on(at_the_start, None)
    assert line.endswith("Start the same torchrun command again")


def test_a_validation_that_is_ended_is_not_continued_but_done_again(monkeypatch):
    """--c and --val exclude each other."""
    words = ["42", "2d", "0", "--config", "my", "--val", "--val_best"]
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train_vit", *words])
    line = command._how_to_go_on(Stopped(signal.SIGTERM, saved=False, has_checkpoint=True), None)
    assert line.endswith("nnUNetv2_train_vit 42 2d 0 --config my --val --val_best")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    line = command._how_to_go_on(Stopped(signal.SIGTERM, saved=False, has_checkpoint=True), None)
    assert line.endswith("Start the same torchrun command again")


def test_the_command_that_predicts_is_one_for_a_shell(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "Dataset042_My eyes" / "T__P l__2d" / "fold_0"
    folder.mkdir(parents=True)
    (folder.parent / "dataset.json").write_text("{}")
    monkeypatch.setattr(command, "_run", lambda _: folder)
    words = ["Dataset042_My eyes", "2d", "0", "--config", "my", "-device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train_vit", *words])
    command.train()
    assert capsys.readouterr().out.endswith(
        "Predict with stock nnU-Net:\n"
        "  nnUNetv2_predict -d 'Dataset042_My eyes' -tr T -p 'P l' -c 2d -f 0 -i IMAGES -o OUTPUT "
        "-device cpu\n"
    )
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--val", "--val_best"])
    command.train()
    assert " -chk checkpoint_best.pth -device cpu\n" in capsys.readouterr().out
    (folder.parent / "dataset.json").write_text('{"neighbours": {"count": 1, "axis": 0}}')
    command.train()
    stack, predict = capsys.readouterr().out.splitlines()[-2:]
    assert stack == f"  nnUNetv2_neighbours_vit -i IMAGES -o STACKED -m '{folder.parent}'"
    assert "-i STACKED -o OUTPUT" in predict
