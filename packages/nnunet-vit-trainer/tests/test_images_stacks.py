"""TIFF of several pages: a volume, or a case of each page; never the first page alone."""

import json

import numpy as np
import pytest
import SimpleITK
import tifffile
from image_folders import SHAPE, imported, mask, noise, picture, read, volume, written

from nnunet_vit_trainer.images.inputs import convert_images
from nnunet_vit_trainer.images.reading.pictures import read_picture
from vit_backbone import UserError

DEPTH = 3


def stack(file, values, **options):
    """Save a TIFF of several pages, folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, values, **{"photometric": "minisblack"} | options)
    return file


def labels(depth=DEPTH):
    return np.stack([mask(255) * (page > 0) for page in range(depth)]).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    for number, name in enumerate("ab"):
        stack(tmp_path / "in" / "images" / f"{name}.tif", noise(DEPTH, *SHAPE, seed=number))
        stack(tmp_path / "in" / "masks" / f"{name}.tif", labels())
    return tmp_path / "in"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"compression": "deflate"},
        {"truncate": True},
    ],
)
def test_all_pages_are_slices(dtype, options, tmp_path):
    values = noise(DEPTH, *SHAPE).astype(dtype)
    pixels = read_picture(stack(tmp_path / "a.tif", values, **options))
    np.testing.assert_array_equal(pixels.values, values[None])
    assert pixels.geometry.spacing == (1, 1, 1)
    assert "for want of a spacing" in pixels.remarks[0]
    for page in range(DEPTH):
        one = read_picture(tmp_path / "a.tif", page=page)
        np.testing.assert_array_equal(one.values, values[page][None])
        assert one.geometry is None


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colours_of_all_pages(planes, tmp_path):
    colours = noise(DEPTH, 3, *SHAPE)
    stored = colours if planes == "separate" else np.moveaxis(colours, 1, -1)
    options = {"photometric": "rgb", "planarconfig": planes}
    pixels = read_picture(stack(tmp_path / "a.tif", stored, **options), spacing=(1, 1, 5))
    assert pixels.channels == ("R", "G", "B")
    assert pixels.remarks == ()
    np.testing.assert_array_equal(pixels.values, np.moveaxis(colours, 1, 0))


def test_stacks_become_volumes_of_the_spacing_that_is_said(folder):
    result = imported(folder, spacing=(0.5, 0.5, 2.0))
    image = SimpleITK.ReadImage(str(result.target / "imagesTr" / "a_0000.nii.gz"))
    assert image.GetSpacing() == (0.5, 0.5, 2.0)
    truth = SimpleITK.ReadImage(str(result.target / "labelsTr" / "a.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(truth), labels() // 255)


def test_each_page_becomes_a_case_where_that_is_asked(folder):
    result = imported(folder, pages="cases")
    assert (
        len(result.looks) == json.loads((result.target / "dataset.json").read_text())["numTraining"]
    )
    for number, name in enumerate("ab"):
        for page in range(DEPTH):
            case = f"{name}_page{page + 1:03d}"
            image = read(result.target / "imagesTr" / f"{case}_0000.png")
            np.testing.assert_array_equal(image, noise(DEPTH, *SHAPE, seed=number)[page])
            truth = read(result.target / "labelsTr" / f"{case}.png")
            np.testing.assert_array_equal(truth, labels()[page] // 255)


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ("volume", "masks/a.tif is 12x10x2, images/a.tif is 12x10x3"),
        ("cases", "the same pages are expected .* images/a.tif has 3, masks/a.tif has 2"),
    ],
)
def test_masks_of_other_pages_are_refused(pages, said, folder):
    stack(folder / "masks" / "a.tif", labels(2))
    with pytest.raises(UserError, match=said):
        imported(folder, pages=pages)
    assert written(folder) == []


def test_a_mask_of_one_page_is_refused(folder):
    picture(folder / "masks" / "a.tif", mask(255))
    with pytest.raises(UserError, match=r"masks/a.tif is 12x10, images/a.tif is 12x10x3"):
        imported(folder)


def test_options_that_nothing_fits_are_refused(folder):
    with pytest.raises(UserError, match="--spacing is for TIFF of several pages"):
        imported(folder, pages="cases", spacing=(1.0, 1.0, 1.0))
    for file in folder.rglob("*.tif"):
        picture(file, mask(255))
    with pytest.raises(UserError, match="--pages cases: no image has several pages"):
        imported(folder, pages="cases")


def test_a_page_that_would_be_another_case_is_refused(folder):
    for kind in ("images", "masks"):
        picture(folder / kind / "a_page002.tif", mask(255))
    with pytest.raises(UserError, match="two cases are called 'a_page002'"):
        imported(folder, pages="cases")


@pytest.mark.parametrize(
    ("axes", "said"), [("CYX", "or channels"), ("ZCYX", "or channels"), ("TYX", "is a film")]
)
def test_pages_that_are_no_slices_are_refused(axes, said, tmp_path):
    shape = (DEPTH, *SHAPE) if len(axes) == 3 else (DEPTH, 2, *SHAPE)
    options = {"imagej": True, "metadata": {"axes": axes}}
    with pytest.raises(UserError, match=said):
        read_picture(stack(tmp_path / "a.tif", noise(*shape), **options))


def test_a_thumbnail_is_no_slice(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(noise(), photometric="minisblack")
        tiff.write(noise(4, 5), photometric="minisblack")
    with pytest.raises(UserError, match="has pages of 2 sizes"):
        read_picture(tmp_path / "a.tif")


def test_stacks_are_converted_as_the_data_set_has_them(folder, tmp_path):
    imported(folder, spacing=(0.5, 0.5, 2.0))
    stack(tmp_path / "new" / "c.tif", noise(5, *SHAPE))
    out = tmp_path / "out"
    convert_images(tmp_path / "new", 42, tmp_path / "raw", out, spacing=(0.5, 0.5, 2.0))
    image = SimpleITK.ReadImage(str(out / "c_0000.nii.gz"))
    assert (image.GetSize(), image.GetSpacing()) == ((12, 10, 5), (0.5, 0.5, 2.0))


def test_a_mask_of_another_format_has_to_lie_at_the_same_place(folder):
    (folder / "masks" / "a.tif").unlink()
    volume(folder / "masks" / "a.nii.gz", labels())
    with pytest.raises(UserError, match=r"masks/a.nii.gz has another spacing"):
        imported(folder)
