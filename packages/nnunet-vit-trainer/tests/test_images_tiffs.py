"""TIFF of any depth and any number of channels is read as it is, or refused."""

import numpy as np
import pytest
import tifffile
from image_folders import DEEP, TURN

from nnunet_vit_trainer.images.reading.pictures import read_picture
from vit_backbone import UserError


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_tiff_of_many_channels(dtype, planes, tmp_path):
    values = np.stack([DEEP + number for number in range(5)]).astype(dtype)
    stored = values if planes == "separate" else np.moveaxis(values, 0, -1)
    options = {"photometric": "minisblack", "planarconfig": planes}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    pixels = read_picture(tmp_path / "a.tif")
    assert pixels.channels == tuple(f"channel_{number}" for number in range(5))
    np.testing.assert_array_equal(pixels.values, values)


@pytest.mark.parametrize("more", [1, 2, 3])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_channels_beside_colours_or_grey_are_kept(photometric, more, tmp_path):
    """PIL reads those of 8 bits as it reads colours, or grey, alone."""
    channels = more + (3 if photometric == "rgb" else 1)
    values = np.stack([DEEP // 256 + number for number in range(channels)]).astype(np.uint8)
    options = {"photometric": photometric, "planarconfig": "contig"}
    extra = {"extrasamples": ["unspecified"] * more}
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(values, 0, -1), **options, **extra)
    pixels = read_picture(tmp_path / "a.tif")
    assert pixels.channels == tuple(f"channel_{number}" for number in range(channels))
    np.testing.assert_array_equal(pixels.values, values)


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"compression": "lzw"}])
@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int16, np.uint32, np.float64])
def test_tiff_of_any_values(dtype, options, tmp_path):
    factor = {np.uint32: 60_000, np.int8: 1 / 256}.get(dtype, 0.4)
    values = (DEEP.astype(np.float64) * factor - (100 if dtype == np.int8 else 0)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").values, values[None])


def test_deep_tiff_with_alpha_or_turned(tmp_path):
    values = np.stack([DEEP, DEEP, DEEP, np.full_like(DEEP, 65535)], -1)
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **alpha)
    assert read_picture(tmp_path / "a.tif").channels == ("R", "G", "B")
    tifffile.imwrite(tmp_path / "a.tif", DEEP, extratags=[(TURN, "H", 1, 8, True)])
    with pytest.raises(UserError, match="stored turned"):
        read_picture(tmp_path / "a.tif")
