"""The start of a run: what is checked, in which order, and whose files are written over."""

import contextlib
import json
import subprocess
import sys

import pytest
import torch

from nnunet_vit_trainer.launch import prepare as preparation
from nnunet_vit_trainer.launch import run
from vit_backbone import UserError

DATASET = "Dataset900_Small"
TRAINER = run.DEFAULT_TRAINER
SETTINGS = {
    "data_identifier": "nnUNetPlans_2d",
    "patch_size": [32, 32],
    "batch_size": 2,
    "normalization_schemes": ["ZScoreNormalization"],
}
CONFIG = {"model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False}}


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def home(tmp_path, monkeypatch):
    """nnU-Net's folders with a planned data set of five cases, which no command has made."""
    for name in ("preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "preprocessed" / DATASET
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "configurations": {
            "2d": SETTINGS,
            "2d_small": {"inherits_from": "2d", "batch_size": 1},
            "2d_gone": {"inherits_from": "2d", "data_identifier": "gone"},
            "2d_empty": {"inherits_from": "2d", "data_identifier": "empty"},
            "3d_fullres": SETTINGS | {"patch_size": [32, 32, 32]},
            "loop": {"inherits_from": "pool"},
            "pool": {"inherits_from": "loop"},
            "orphan": {"inherits_from": "nothing"},
        },
    }
    write(folder / "nnUNetPlans.json", plans)
    write(folder / "dataset.json", {"channel_names": {"0": "T1"}, "labels": {"background": 0}})
    (folder / "empty").mkdir()
    (folder / "nnUNetPlans_2d").mkdir()
    for i in range(5):
        (folder / "nnUNetPlans_2d" / f"case{i}.pkl").touch()
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """What the trainer would get; nothing is trained."""
    calls = []
    monkeypatch.setattr(run, "train_fold", lambda *given: calls.append(given[2]))
    return calls


def config(home, name="my", folder="a", **sections):
    return write(home / folder / f"{name}.yaml", CONFIG | sections)


def start(home, configuration="2d", fold=0, file=None, dataset=DATASET, **options):
    file = file or config(home)
    return run.run_training_vit(dataset, configuration, fold, file, device="cpu", **options)


def results_of(home, name="my"):
    return home / "results" / DATASET / f"{TRAINER}__nnUNetPlans_{name}__2d"


def plans_of(home, name="my"):
    return home / "preprocessed" / DATASET / f"nnUNetPlans_{name}.json"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"plans_name": "nnUNetPlans_iso"}', "was not derived by nnUNetv2_train_vit"),
        ('{"plans_name": ', "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_plans_file_that_is_not_ours_is_never_replaced(content, said, home, trained):
    plans_of(home, "iso").write_text(content)
    with pytest.raises(UserError, match=said):
        start(home, file=config(home, "iso"))
    assert plans_of(home, "iso").read_text() == content
    assert not results_of(home, "iso").exists()


def test_plans_of_ours_are_replaced(home, trained):
    start(home)
    start(home, file=config(home, train={"initial_lr": 0.5}))
    assert json.loads(plans_of(home).read_text())["vit"]["train"]["initial_lr"] == 0.5
    assert not list(home.rglob("*.tmp"))


def test_the_prepared_plans_are_trained_and_not_the_file(home, monkeypatch):
    """Another user's config of the name may replace the file while this one starts."""
    seen = []

    def train_fold(request, dataset, plans, folder):
        plans_of(home).write_text("{}")
        seen.append(plans)

    monkeypatch.setattr(run, "train_fold", train_fold)
    start(home, file=config(home, train={"initial_lr": 0.25}))
    assert seen[0]["vit"]["train"]["initial_lr"] == 0.25
    assert seen[0] == json.loads(json.dumps(seen[0]))


OTHER = {"train": {"initial_lr": 0.5}}
START = """
import json, sys
from nnunet_vit_trainer.launch import run
def train_fold(*_):
    print("under way", flush=True)
    sys.stdin.read()
run.train_fold = train_fold
run.run_training_vit({dataset!r}, "2d", 1, sys.argv[1], device="cpu")
"""


@contextlib.contextmanager
def under_way(file):
    """Another user's run, in its own process, before its first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", START.format(dataset=DATASET), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"under way\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_config_of_the_name_waits_for_no_run_under_way(home, trained):
    theirs = config(home)
    with under_way(theirs):
        with pytest.raises(UserError, match=r"is being trained in .*train\.initial_lr was 0\.001"):
            start(home, file=config(home, folder="b", **OTHER))
        assert json.loads(plans_of(home).read_text())["vit"]["train"]["initial_lr"] == 0.001
        start(home, file=theirs)  # another fold of the same
    # That run was killed before its first checkpoint: nothing of it is lost.
    start(home, file=config(home, folder="b", **OTHER))
    recorded = json.loads((results_of(home) / "plans.json").read_text())
    assert recorded["vit"]["train"]["initial_lr"] == 0.5


@pytest.mark.parametrize("left", ["fold_0/checkpoint_best.pth", "fold_all/validation/summary.json"])
def test_results_of_another_config_stay(left, home, trained):
    start(home)
    write(results_of(home) / left, {})
    with pytest.raises(UserError, match="holds results of another config"):
        start(home, file=config(home, folder="b", **OTHER))
    start(home)
    assert len(trained) == 2


def test_a_start_that_failed_does_not_block_the_mended_config(home, monkeypatch, trained):
    def fail(*_):
        fold = results_of(home) / "fold_0"
        fold.mkdir(parents=True)
        (fold / "training_log_1.txt").touch()
        (fold.parent / "plans.json").write_text(plans_of(home).read_text())  # as nnU-Net does
        raise RuntimeError("out of memory")

    monkeypatch.setattr(run, "train_fold", fail)
    with pytest.raises(RuntimeError):
        start(home)
    monkeypatch.setattr(run, "train_fold", lambda *_: None)
    start(home, file=config(home, folder="b", train={"batch_size": 1}))
    recorded = json.loads((results_of(home) / "plans.json").read_text())
    assert recorded["configurations"]["2d"]["batch_size"] == 1


def test_results_that_are_not_ours_are_left(home, trained):
    write(results_of(home) / "fold_0" / "checkpoint_final.pth", {})
    with pytest.raises(UserError, match=r"plans\.json cannot be read"):
        start(home)
    write(results_of(home) / "plans.json", {"plans_name": "nnUNetPlans_my"})
    with pytest.raises(UserError, match="holds results that are not of nnUNetv2_train_vit"):
        start(home)


def test_a_results_folder_that_cannot_be_written_is_one_line(home, trained):
    (home / "results" / DATASET).touch()
    with pytest.raises(UserError, match="cannot be written"):
        start(home)


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ("3d_fullres", "is not 2D"),
        ("2d_gone", "no preprocessed cases in .*gone; run nnUNetv2_preprocess"),
        ("2d_empty", "no preprocessed cases in .*empty"),
        ("loop", "inherit in a circle: loop from pool from loop"),
        ("orphan", "no configuration 'nothing', from which 'orphan' inherits; they have 2d"),
    ],
)
def test_a_configuration_is_checked_before_weights_are_fetched(
    configuration, said, home, trained, monkeypatch
):
    monkeypatch.setattr(preparation, "find_backbone", lambda *_: pytest.fail("weights fetched"))
    with pytest.raises(UserError, match=said):
        start(home, configuration)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"lora": {"target_modules": ["qvk"]}}, "match no linear layer"),
        ({"model": CONFIG["model"] | {"layer_indices": [0, 1, 2, 99]}}, "outside of"),
        ({"model": CONFIG["model"] | {"input_norm": "imagenet"}}, "normalise twice"),
        ({"train": {"checkpoint": "adapter"}}, "adapter needs a weight file"),
    ],
)
def test_what_needs_no_weights_is_said_before_they_are_fetched(
    sections, said, home, trained, monkeypatch
):
    monkeypatch.setattr(preparation, "find_backbone", lambda *_: pytest.fail("weights fetched"))
    with pytest.raises(UserError, match=said):
        start(home, file=config(home, **sections))
    assert not plans_of(home).exists()


def test_an_inherited_configuration_trains_where_its_data_are(home, trained):
    start(home, "2d_small")
    assert trained[0]["configurations"]["2d_small"]["batch_size"] == 1
    data = home / "preprocessed" / DATASET / "nnUNetPlans_2d"
    data.rename(data.with_name("away"))
    with pytest.raises(UserError, match=r"no preprocessed cases in .*nnUNetPlans_2d"):
        start(home, "2d_small")


@pytest.mark.parametrize(
    ("sides", "said"), [((10**6, 10**6), "would have 1.0e.12"), ((10**15, 10**15), "be built: ")]
)
def test_a_network_that_no_machine_holds_is_refused(sides, said, monkeypatch):
    def head(**_):
        return torch.nn.Linear(*sides, bias=False)

    monkeypatch.setattr("nnunet_vit_trainer.network.find_head", lambda name: head)
    with pytest.raises(UserError, match=said):
        preparation.try_to_build({"architecture": {"arch_kwargs": {"head": "mine"}}})
