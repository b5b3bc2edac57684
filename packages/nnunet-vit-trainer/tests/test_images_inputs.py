"""Images alone are written as a data set has its own, or refused."""

import sys

import numpy as np
import pytest
import SimpleITK
from image_folders import SHAPE, imported, mask, noise, picture, read, series, two_photos

from nnunet_vit_trainer.commands.import_images import import_images as command
from nnunet_vit_trainer.images.inputs import convert_images
from vit_backbone import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    return two_photos(tmp_path / "in")


def test_images_alone_become_what_the_data_set_has(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    imported(folder)
    for name in ("x", "y"):
        picture(tmp_path / "new" / f"{name}.jpg", noise(9, 9, 3))
    arguments = ["import_images", str(tmp_path / "new"), "-d", "42", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    command()
    assert "2 images as Dataset042_Mine has them" in capsys.readouterr().out
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["x_0000.png", "y_0000.png"]
    decoded = read(tmp_path / "new" / "x.jpg")
    np.testing.assert_array_equal(read(tmp_path / "out" / "x_0000.png"), decoded)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (noise(), r"2 kinds: 1 RGB, 8 bit \(imagesTr/a_0000.png\); 1 grey, 8 bit \(new/x.tif"),
        (noise().astype(np.uint16), "2 kinds: .*grey, 16 bit"),
    ],
)
def test_images_of_another_kind_are_not_converted(values, said, folder, tmp_path):
    imported(folder)
    picture(tmp_path / "new" / "x.tif", values)
    with pytest.raises(UserError, match=said):
        convert_images(tmp_path / "new", 42, tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"-d 41: .*; there: Dataset042_Mine"):
        convert_images(tmp_path / "new", 41, tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UserError, match="there already; name a new folder"):
        convert_images(tmp_path / "new", 42, tmp_path / "raw", tmp_path / "new")


def test_single_slices_are_converted_as_the_2d_images_that_the_data_set_has(tmp_path):
    for name in ("images/a", "images/b", "new/c"):
        series(tmp_path / "in" / name, np.zeros((1, *SHAPE), np.int16))
    for name in ("a", "b"):
        picture(tmp_path / "in" / "masks" / f"{name}.png", mask(255))
    imported(tmp_path / "in")
    out = tmp_path / "out"
    assert convert_images(tmp_path / "in" / "new", 42, tmp_path / "raw", out)[1] == 1
    assert SimpleITK.ReadImage(str(out / "c_0000.nii.gz")).GetDimension() == 2
