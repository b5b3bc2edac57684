"""The demo's data set and what it promises of its folder; the whole demo runs in nox -s wheels."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from nnunet_vit_trainer.config.reading import load_config
from nnunet_vit_trainer.demo import config, run_demo, steps
from nnunet_vit_trainer.demo.config import config_of
from nnunet_vit_trainer.demo.data import CLASSES, make_image, write_dataset
from nnunet_vit_trainer.demo.dice import dice_per_class
from vit_backbone import UserError


def test_no_interval_of_grey_values_finds_a_class():
    """The best threshold pair of 32 levels, chosen in hindsight, stays far from a segmentation."""
    rng = np.random.default_rng(1)
    images, labels = zip(*(make_image(rng, 128) for _ in range(6)), strict=True)
    grey, label = np.stack(images), np.stack(labels)
    levels = np.linspace(0, 256, 33)
    total = np.histogram(grey, levels)[0]
    for c in range(1, len(CLASSES) + 1):
        inside = np.histogram(grey[label == c], levels)[0]
        best = max(
            2 * inside[lo:hi].sum() / (total[lo:hi].sum() + inside.sum())
            for lo in range(32)
            for hi in range(lo + 1, 33)
        )
        assert best < 0.5, CLASSES[c - 1]


def test_the_data_set_is_nnunets_and_the_same_each_time(tmp_path):
    first = write_dataset(tmp_path / "a", num_train=2, num_test=1, size=32)
    second = write_dataset(tmp_path / "b", num_train=2, num_test=1, size=32)
    files = sorted(f.relative_to(first) for f in first.rglob("*.png"))
    assert [str(f) for f in files] == [
        "imagesTr/demo_tr_000_0000.png",
        "imagesTr/demo_tr_001_0000.png",
        "imagesTs/demo_ts_000_0000.png",
        "labelsTr/demo_tr_000.png",
        "labelsTr/demo_tr_001.png",
        "labelsTs/demo_ts_000.png",
    ]
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)
    assert json.loads((first / "dataset.json").read_text())["labels"]["blotches"] == 3


def test_dice_is_the_mean_over_images_that_have_the_class(tmp_path):
    for name in ("truth", "prediction"):
        (tmp_path / name).mkdir()
    truth = np.array([[1, 1], [0, 2]], np.uint8), np.array([[1, 0], [0, 0]], np.uint8)
    predicted = np.array([[1, 0], [0, 2]], np.uint8), np.array([[1, 0], [0, 2]], np.uint8)
    for i, (t, p) in enumerate(zip(truth, predicted, strict=True)):
        Image.fromarray(t).save(tmp_path / "truth" / f"{i}.png")
        Image.fromarray(p).save(tmp_path / "prediction" / f"{i}.png")
    dice = dice_per_class(tmp_path / "truth", tmp_path / "prediction", 2)
    assert dice == pytest.approx([(2 / 3 + 1) / 2, 1.0])


def test_the_demo_trains_a_tiny_vit_or_lora_on_given_weights(tmp_path, monkeypatch):
    pytest.importorskip("vit_heads_segformer", reason="segformer is not installed")

    def read(text):
        (tmp_path / "demo.yaml").write_text(text)
        return load_config(tmp_path / "demo.yaml")

    assert read(config_of()).model.pretrained is False
    found = {"backbone": "dinov2", "backbone_size": "small"}
    monkeypatch.setattr(config, "_backbone_of", lambda _: found)
    with_weights = read(config_of(tmp_path / "w: 1.pth"))
    assert (with_weights.tune, with_weights.model.backbone_size) == ("lora", "small")
    assert with_weights.model.checkpoint_path == str(tmp_path / "w: 1.pth")


def test_weights_that_are_not_there_or_unknown_are_refused_before_anything_is_written(
    exporter, tmp_path, monkeypatch
):
    monkeypatch.setattr("nnunet_vit_trainer.demo.steps.is_installed_head", lambda name: True)
    with pytest.raises(UserError, match="no such file"):
        run_demo(tmp_path / "demo", tmp_path / "gone.pth")
    with pytest.raises(UserError, match="no backbone that the demo knows"):
        run_demo(tmp_path / "demo", exporter / "vit.pth")
    assert not (tmp_path / "demo").exists()


def test_the_demo_ends_with_the_trainings_pictures_or_says_where_to_look(tmp_path):
    fold = steps._fold(tmp_path)
    fold.mkdir(parents=True)
    (fold / "overlay.png").write_text("a sheet")
    told = steps._told_pictures(tmp_path)
    assert (tmp_path / "overlay.png").read_text() == "a sheet"
    assert str(tmp_path / "overlay.png") in told
    assert re.search(rf"report +not drawn; the training's log in {fold}", told)
    assert "features" not in told


def test_a_folder_with_other_things_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("nnunet_vit_trainer.demo.steps.is_installed_head", lambda name: True)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other things"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "work",
    [
        "raw/Dataset042_Mine",
        "preprocessed/Dataset042_Mine",
        "results/Dataset042_Mine",
        f"results/{steps.DATASET}/nnUNetTrainer__nnUNetPlans__2d",
    ],
)
def test_what_somebody_did_in_the_demos_folder_is_not_replaced(tmp_path, monkeypatch, work):
    """The demo ends with commands for one's own data, which may be given its folders."""
    monkeypatch.setattr("nnunet_vit_trainer.demo.steps.is_installed_head", lambda name: True)
    monkeypatch.setattr(steps, "write_dataset", lambda raw: pytest.fail("the demo began"))
    (tmp_path / "demo.yaml").touch()
    steps._fold(tmp_path).mkdir(parents=True)
    (tmp_path / work).mkdir(parents=True)
    with pytest.raises(UserError, match=f"other things than an earlier demo .{work}"):
        run_demo(tmp_path)
    assert (tmp_path / work).is_dir()


def test_a_demo_that_was_killed_at_once_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("nnunet_vit_trainer.demo.steps.is_installed_head", lambda name: True)

    def killed(raw):
        (raw / steps.DATASET).mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_vit_trainer.demo.steps.write_dataset", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path)


def test_a_head_that_is_not_installed_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("nnunet_vit_trainer.demo.steps.is_installed_head", lambda name: False)
    with pytest.raises(UserError, match=r"uv pip install 'nnunet-vit-trainer\[segformer\]'"):
        run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
