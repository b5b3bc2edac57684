"""The page and the command: what was found, what is worth a look, what comes next."""

import io
import shutil
import sys

import numpy as np
import pytest
from image_folders import NAME, SHAPE, imported, mask, noise, picture, two_photos, volume
from rich.console import Console

from nnunet_vit_trainer.commands.import_images import import_images as command
from nnunet_vit_trainer.images.page import print_page


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    return two_photos(tmp_path / "in")


def one_pixel(*shape):
    values = np.zeros(shape, np.uint8)
    values[0, 0] = 255
    return values


def page_of(result, *, check=False):
    console = Console(file=io.StringIO(), width=200, record=True)
    print_page(result, check=check, console=console)
    return console.export_text()


def test_the_page_says_what_was_found_within_80_columns(folder):
    picture(folder / "masks" / "a_mask.png", mask(0))
    (folder / "Thumbs.db").write_text("")
    page = page_of(imported(folder))
    assert max(map(len, page.splitlines())) <= 80
    words = " ".join(page.split())
    for said in (
        "cases 2: images in images/, masks in masks/",
        "such as a.png with a_mask.png",
        "images 2 PNG, 12x10 px",
        "channels R, G, B (8 bit)",
        "left alone Thumbs.db",
        "foreground 1 255 8.33% 1",
        "note: 1 of 2 masks are background alone",
        "note: 2 cases cannot be split into nnU-Net's 5 folds",
        "nnUNetv2_plan_and_preprocess -d 42 -c 2d --verify_dataset_integrity",
        "nnUNetv2_train_vit 42 2d all --config NAME",
    ):
        assert said in words, page


@pytest.mark.parametrize(
    ("change", "request_", "said"),
    [
        (
            {"mask": lambda: 255 - mask(255)},
            {},
            "'foreground' is 83% of all pixels: is it the backg",
        ),
        ({}, {"labels": ["a=255", "b=7"]}, "no mask holds 'b'"),
        (
            {"image": lambda: np.dstack([noise(*SHAPE, 3), mask(0)])},
            {},
            "2 images: alpha, the same",
        ),
        ({}, {"threshold": 100}, "foreground 1 from 100"),
        ({"image": lambda: noise(200, 300), "mask": lambda: one_pixel(200, 300)}, {}, "< 0.01%"),
    ],
)
def test_what_is_worth_a_look_is_noted(change, request_, said, folder):
    for kind, values in change.items():
        for file in (folder / f"{kind}s").iterdir():
            picture(file, values())
    assert said in " ".join(page_of(imported(folder, **request_)).split())


def test_values_of_ct_are_noted(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000
    volume(tmp_path / "in" / "images" / "a.nii", values)
    volume(tmp_path / "in" / "masks" / "a.nii", (values > -990).astype(np.uint8))
    assert "the values look like CT's: --channels CT" in page_of(imported(tmp_path / "in"))
    shutil.rmtree(tmp_path / "raw")
    assert "look like CT" not in page_of(imported(tmp_path / "in", channels=["CT"]))


def test_unpaired_files_are_left_out_where_that_is_said(folder):
    (folder / "masks" / "a_mask.png").unlink()
    result = imported(folder, skip_unpaired=True)
    assert [f.name for f in (result.target / "labelsTr").iterdir()] == ["b (1).png"]
    assert "left out, for want of a mask: images/a.png" in page_of(result)


def test_the_command_prints_a_page_or_one_line(folder, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(folder.parent / "raw"))
    monkeypatch.setattr(sys, "argv", ["import_images", str(folder), "-d", "42", "-n", "Mine"])
    command()
    assert NAME in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("spacing", ["0", "-1", "nan", "inf", "x"])
def test_a_spacing_that_is_none_is_one_line(spacing, folder, monkeypatch, capsys):
    words = f"x {folder} -d 42 -n Mine --spacing 1 1 {spacing}".split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 2
    assert "argument --spacing" in capsys.readouterr().err
