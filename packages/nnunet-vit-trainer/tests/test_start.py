"""The start of a run: what is checked, and in which order."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from a_start import (
    CONFIG,
    DATASET,
    SETTINGS,
    config,
    make_home,
    plans_of,
    results_of,
    start,
    train_nothing,
    write,
)
from in_the_air import in_the_air, make_trainer

from nnunet_vit_trainer.checkpoints.newest import newest_checkpoint
from nnunet_vit_trainer.launch import prepare as preparation
from nnunet_vit_trainer.launch.fold import _load_best, _load_checkpoint
from vit_backbone import UserError, WeightsError


@pytest.fixture
def home(tmp_path, monkeypatch):
    return make_home(tmp_path, monkeypatch)


@pytest.fixture
def trained(monkeypatch):
    return train_nothing(monkeypatch)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("final", "holds a finished training, which this new one replaces"),
        ("best", "holds a training that did not end (checkpoint_best.pth), which this new one"),
    ],
)
@pytest.mark.parametrize(("mode", "lines"), [("new", 1), ("validate", 0)])
def test_a_training_is_not_replaced_without_a_word(mode, lines, name, what, tmp_path):
    said = []
    trainer = SimpleNamespace(output_folder=str(tmp_path), print_to_log_file=said.append)
    trainer.load_checkpoint = lambda file: None
    request = SimpleNamespace(mode=mode)
    _load_checkpoint(trainer, request)
    (tmp_path / f"checkpoint_{name}.pth").touch()
    _load_checkpoint(trainer, request)
    assert sum(what in line for line in said) == len(said) == lines


@pytest.mark.parametrize("kept", [0, 20_000, -30])
def test_a_checkpoint_that_was_cut_off_is_one_line(kept, tmp_path):
    """At each of these lengths torch raises another kind of error."""
    with in_the_air(tmp_path):
        trainer = make_trainer()
    for name, load in (("final", partial(_load_checkpoint, trainer)), ("best", _load_best)):
        file = Path(trainer.output_folder, f"checkpoint_{name}.pth")
        torch.save({"network_weights": {"a": torch.zeros(100_000)}}, file)
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(UserError, match=rf"{name}\.pth cannot be read as a checkpoint .*--c"):
            load(SimpleNamespace(mode="validate") if name == "final" else trainer)


def test_what_to_do_about_a_broken_checkpoint_is_told_whatever_the_reason(tmp_path, monkeypatch):
    def fail(*of, **options):
        raise RuntimeError("because of this and that, " * 40)

    monkeypatch.setattr(torch, "load", fail)
    folder = tmp_path / ("long" * 30) / ("longer" * 30)
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    with pytest.raises(UserError, match="because of") as refused:
        newest_checkpoint(folder)
    said = str(refused.value)
    assert "checkpoint_final.pth cannot be read" in said
    assert said.endswith("; move it away, then --c goes on from another one")


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ("3d_fullres", "is not 2D"),
        (
            "2d_gone",
            r"no preprocessed cases in .*gone; run nnUNetv2_preprocess -d \d{3} -c 2d_gone",
        ),
        ("2d_empty", "no preprocessed cases in .*empty"),
        ("2d_halved", "no preprocessed cases in .*halved"),
        ("loop", "inherit in a circle: loop from pool from loop"),
        ("orphan", "no configuration 'nothing', from which 'orphan' inherits; they have 2d"),
        ("of_two", r"no configuration \['2d', 'pool'\], from which 'of_two' inherits"),
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
    file = config(home, **sections)
    with pytest.raises(UserError, match=said) as caught:
        start(home, file=file)
    assert str(caught.value).startswith(f"{file}: ")
    assert not plans_of(home).exists()


@pytest.mark.parametrize(
    ("configuration", "plans_name"), [("2d__small", "nnUNetPlans"), ("2d", "nnUNetPlans_")]
)
def test_names_that_nnunet_would_split_elsewhere_are_refused(
    configuration, plans_name, home, trained
):
    """The results' folder is split at ``__``, by us when the training has come to its end."""
    file = home / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d__small"] = {"inherits_from": "2d"}
    write(file, plans | {"plans_name": plans_name})
    with pytest.raises(UserError, match="a name that nnU-Net splits at '__'"):
        start(home, configuration)
    assert not trained


def test_an_inherited_configuration_trains_where_its_data_are(home, trained):
    start(home, "2d_small")
    assert trained[0]["configurations"]["2d_small"]["batch_size"] == 1
    data = home / "preprocessed" / DATASET / "nnUNetPlans_2d"
    data.rename(data.with_name("away"))
    with pytest.raises(UserError, match=r"no preprocessed cases in .*nnUNetPlans_2d"):
        start(home, "2d_small")


@pytest.mark.parametrize(
    ("file", "fits"),
    [
        (".DS_Store", False),
        ("notes.txt", False),
        ("case0.npz", False),
        ("README", False),
        ("case0.npy", True),
        ("case0_seg.b2nd", True),
    ],
)
def test_other_files_among_the_cases_are_named(file, fits, home, trained):
    (home / "preprocessed" / DATASET / SETTINGS["data_identifier"] / file).touch()
    if fits:
        start(home)
        return
    with pytest.raises(UserError, match=rf"nnUNetPlans_2d holds '{file}': nnU-Net expects"):
        start(home)
    assert not trained


@pytest.mark.parametrize(
    ("options", "checkpoint"),
    [
        ({}, ""),
        ({"continue_training": True}, "latest"),
        ({"only_run_validation": True}, "final"),
    ],
)
@pytest.mark.parametrize("fold", [0, 1])
def test_splits_that_cannot_be_read_are_one_line_whatever_is_asked(
    fold, options, checkpoint, home, trained
):
    splits = home / "preprocessed" / DATASET / "splits_final.json"
    cases = [f"case{i}" for i in range(5)]
    write(splits, [{"train": cases[:4], "val": cases[4:]}] * 2)
    start(home, fold=fold)
    if checkpoint:
        write(results_of(home) / f"fold_{fold}" / f"checkpoint_{checkpoint}.pth", {})
    split = {"train": cases[:4], "val": ["gone"]}
    for content, said in (("[{", "cannot be read"), (json.dumps([split] * 2), "such as 'gone'")):
        splits.write_text(content)
        with pytest.raises(UserError, match=rf"splits_final\.json.*{said}"):
            start(home, fold=fold, **options)
    write(splits, [split | {"val": cases[4:]}])
    if fold and checkpoint:  # 0.1.0 may have trained it on a split of nnU-Net's own
        start(home, fold=fold, **options)
    assert len(trained) == 1 + bool(fold and checkpoint)


def name_channels(home, *names):
    named = {str(i): name for i, name in enumerate(names)}
    content = {"channel_names": named, "labels": {"background": 0}}
    write(home / "preprocessed" / DATASET / "dataset.json", content)


def test_channels_that_were_added_after_the_planning_are_refused(home, trained):
    name_channels(home, "T1", "T2")
    with pytest.raises(UserError, match=r"names 2 channels \(T1, T2\), the plans have 1; plan"):
        start(home)
    assert not trained


UNIT = "RGBTo01Normalization"


@pytest.mark.parametrize(
    ("schemes", "input_norm", "mean"),
    [
        ([UNIT] * 3, "auto", [0.485, 0.456, 0.406]),
        ([UNIT] * 2, "auto", [0.449] * 2),
        ([UNIT, "ZScoreNormalization"], "auto", [0.449, 0]),
        (["NoNormalization", UNIT], "auto", [7, 0.449]),
        (["ZScoreNormalization"] * 2, {"mean": [1, 2], "std": [3, 4]}, [1, 2]),
    ],
)
def test_each_channel_may_have_statistics_of_its_own(schemes, input_norm, mean, home, trained):
    """Those of raw channels stand in the plans, under the name that nnU-Net v2 gave them first."""
    file = home / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"]["normalization_schemes"] = schemes
    plans["foreground_intensity_properties_by_modality"] = {"0": {"mean": 7.0, "std": 2.0}}
    write(file, plans)
    name_channels(home, *"abc"[: len(schemes)])
    start(home, file=config(home, model=CONFIG["model"] | {"input_norm": input_norm}))
    architecture = trained[0]["configurations"]["2d"]["architecture"]["arch_kwargs"]
    assert architecture["backbone_options"]["input_norm"]["mean"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("sides", "said"), [((10**6, 10**6), "would have 1.0e.12"), ((10**15, 10**15), "be built: ")]
)
def test_a_network_that_no_machine_holds_is_refused(sides, said, monkeypatch):
    def head(**_):
        return torch.nn.Linear(*sides, bias=False)

    monkeypatch.setattr("nnunet_vit_trainer.network.find_head", lambda name: head)
    with pytest.raises(UserError, match=said):
        preparation.try_to_build(SETTINGS | {"architecture": {"arch_kwargs": {"head": "mine"}}})


def test_a_file_that_would_end_the_run_at_once_is_refused_but_for_a_validation(home, trained):
    file = config(home, train={"stop_file": "enough"})
    start(home, file=file)
    fold = results_of(home) / "fold_0"
    for name in ("enough", "checkpoint_final.pth"):
        (fold / name).touch()
    for options in ({}, {"continue_training": True}):
        with pytest.raises(UserError, match=r"train\.stop_file: .*fold_0/enough is there already"):
            start(home, file=file, **options)
    start(home, file=file, only_run_validation=True)
    start(home, file=file, fold=1)
    assert len(trained) == 3


def test_a_shipped_config_without_its_weights_says_how_to_give_them(home, trained, monkeypatch):
    def missing(*_):
        raise WeightsError("checkpoint_path 'gone.pth' is not there")

    monkeypatch.setattr(preparation, "find_backbone", missing)
    for file, remedy in (
        ("linear", "linear: .*not there: nnUNetv2_configs_vit --write linear --checkpoint_path"),
        (config(home), r"my\.yaml: .*not there$"),
    ):
        with pytest.raises(WeightsError, match=remedy):
            start(home, file=file)
    assert not trained


def test_a_precision_that_the_device_has_not_is_refused_before_anything_is_written(home, trained):
    with pytest.raises(UserError, match=r"train\.amp_dtype: float16 needs CUDA, the device is cpu"):
        start(home, file=config(home, train={"amp_dtype": "float16"}))
    assert not trained
    assert not plans_of(home).exists()
    assert not results_of(home).exists()


def test_a_head_that_has_nothing_to_compute_anew_is_refused(home, trained):
    file = config(home, train={"grad_checkpointing_head": True})
    with pytest.raises(UserError, match=r"train\.grad_checkpointing_head: head 'linear' keeps"):
        start(home, file=file)
    assert not trained
    assert not plans_of(home).exists()
    model = CONFIG["model"] | {"decoder": {"image_stem": True}}
    start(home, file=config(home, model=model, train={"grad_checkpointing_head": True}))
    assert len(trained) == 1
