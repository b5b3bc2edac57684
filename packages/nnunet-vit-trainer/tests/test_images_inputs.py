"""Images alone are written as a data set has its own, or refused."""

import sys

import numpy as np
import pytest
import SimpleITK
import tifffile
from image_folders import (
    SHAPE,
    imported,
    mask,
    noise,
    picture,
    read,
    series,
    two_photos,
    volume,
    xray,
)

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


SLICE = np.zeros((1, *SHAPE), np.int16)


def slices_of(root, save, **request):
    """Import two slices, each saved by ``save``, and return how a folder ``new`` is converted."""
    for name in ("a", "b"):
        save(root / "in" / "images" / name)
        volume(root / "in" / "masks" / f"{name}.nii", mask(1)[None], origin=(0, 0, 0))
    imported(root / "in", **request)
    return lambda: convert_images(root / "new", 42, root / "raw", root / "out")


@pytest.mark.parametrize("channels", [None, ["CT"], ["bone"]])
@pytest.mark.parametrize("inverted", [False, True])
def test_x_rays_are_converted_where_black_is_high_as_in_the_data_set(channels, inverted, tmp_path):
    convert = slices_of(tmp_path, lambda f: xray(f, inverted=inverted), channels=channels)
    xray(tmp_path / "new" / "c", inverted=inverted)
    assert convert()[1] == 1
    xray(tmp_path / "new" / "d", inverted=not inverted)
    (tmp_path / "out").rename(tmp_path / "first")
    with pytest.raises(UserError, match=r"2 kinds: .*CR_inverted in 2D"):
        convert()


@pytest.mark.parametrize("channels", [None, ["ct"], ["other"]])
def test_another_modality_is_not_converted(channels, tmp_path):
    convert = slices_of(tmp_path, lambda folder: series(folder, SLICE), channels=channels)
    series(tmp_path / "new" / "c", SLICE, modality="MR")
    with pytest.raises(UserError, match=r"new/c is MR, and the images of .*_Mine are CT:"):
        convert()
    series(tmp_path / "new" / "c", SLICE, modality="CT")
    assert convert()[1] == 1


def test_nifti_is_of_the_modality_that_the_user_says(tmp_path):
    def save(folder):
        volume(folder.with_suffix(".nii"), SLICE, origin=(0, 0, 0))

    convert = slices_of(tmp_path, save, channels=["CT"])
    save(tmp_path / "new" / "c")
    assert convert()[1] == 1
    (tmp_path / "out").rename(tmp_path / "first")
    series(tmp_path / "new" / "d", SLICE, modality="MR")
    with pytest.raises(UserError, match=r"new/d is MR, and the images of .* are CT:"):
        convert()


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float64])
def test_tiff_of_values_that_are_stored_as_floats_is_converted_alike(dtype, tmp_path):
    for name in ("in/a", "in/b", "new/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"{name}.tif", noise().astype(dtype))
    for name in ("a", "b"):
        picture(tmp_path / "in" / f"{name}_mask.png", mask(255))
    imported(tmp_path / "in")
    convert_images(tmp_path / "new", 42, tmp_path / "raw", tmp_path / "out")
    written = read(tmp_path / "out" / "c_0000.tif")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, noise())


def test_numbered_slices_are_converted_one_by_one(folder, tmp_path):
    imported(folder)
    for number in range(3):
        picture(tmp_path / "new" / f"scan_{number:04d}.png", noise(*SHAPE, 3))
    convert_images(tmp_path / "new", 42, tmp_path / "raw", tmp_path / "out")
    names = [f"scan_{number:04d}_0000.png" for number in range(3)]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
