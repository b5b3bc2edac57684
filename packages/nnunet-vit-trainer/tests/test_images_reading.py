"""Pixels are read without losing a bit, and what would be lost or turned is refused."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from image_folders import (
    DEEP,
    SHAPE,
    TURN,
    coloured,
    imported,
    mask,
    noise,
    picture,
    read,
    series,
    volume,
)
from PIL import Image

from nnunet_vit_trainer.images.finding.pairing import Case
from nnunet_vit_trainer.images.finding.sources import Item, series_item
from nnunet_vit_trainer.images.reading.cases import Reading, read_case
from nnunet_vit_trainer.images.reading.pictures import read_picture
from nnunet_vit_trainer.images.reading.volumes import read_series, read_volume
from vit_backbone import UserError


def png_of_16_bits(file, values):
    """Write an RGB PNG of 16 bits, which PIL cannot."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return file


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif"])
def test_grey_of_8_bits(ending, tmp_path):
    values = noise()
    pixels = read_picture(picture(tmp_path / f"a.{ending}", values))
    assert pixels.channels == ("grey",)
    np.testing.assert_array_equal(pixels.values, values[None])


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_colours_of_8_bits(ending, tmp_path):
    values = noise(*SHAPE, 3)
    pixels = read_picture(picture(tmp_path / f"a.{ending}", values))
    assert pixels.channels == ("R", "G", "B")
    np.testing.assert_array_equal(pixels.values, np.moveaxis(values, -1, 0))


@pytest.mark.parametrize("values", [DEEP, DEEP.astype(np.float32) / 7, DEEP.astype(np.int32) - 9])
def test_deep_grey(values, tmp_path):
    pixels = read_picture(picture(tmp_path / "a.tif", values))
    assert pixels.values.dtype == values.dtype
    np.testing.assert_array_equal(pixels.values, values[None])


def test_a_grey_png_of_16_bits(tmp_path):
    pixels = read_picture(picture(tmp_path / "a.png", DEEP))
    assert pixels.values.dtype == np.uint16
    np.testing.assert_array_equal(pixels.values, DEEP[None])


def test_colours_of_16_bits_keep_all_of_them(tmp_path):
    """PIL would hand out the upper 8 without a word, and ITK of some TIFFs too."""
    values = np.stack([DEEP, DEEP // 3, 65535 - DEEP], -1)
    png_of_16_bits(tmp_path / "a.png", values)
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="rgb", compression="zlib")
    planes = np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "c.tif", planes, photometric="rgb", planarconfig="separate")
    for name in ("a.png", "b.tif", "c.tif"):
        pixels = read_picture(tmp_path / name)
        assert pixels.values.dtype == np.uint16
        assert pixels.channels == ("R", "G", "B")
        np.testing.assert_array_equal(pixels.values, planes)


def test_a_palette_is_colours_in_an_image_and_values_in_a_mask(tmp_path):
    image = Image.fromarray(mask(1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png")
    assert pixels.channels == ("R", "G", "B")
    assert pixels.values[:, 0, 0].tolist() == [255, 0, 0]
    pixels = read_picture(tmp_path / "a.png", mask=True)
    np.testing.assert_array_equal(pixels.values, mask(1)[None])
    assert [pixels.palette[value] for value in (0, 1)] == [0, 0xFF0000]


def test_one_bit_is_white_as_in_others(tmp_path):
    pixels = read_picture(picture(tmp_path / "a.png", mask(255), mode="1"), mask=True)
    np.testing.assert_array_equal(pixels.values, mask(255)[None])


def test_a_mask_of_one_bit_in_which_white_is_0_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", mask() > 0)
    with pytest.raises(UserError, match=r"0 is white: .* save it as PNG, or as uint8"):
        read_picture(tmp_path / "a.tif", mask=True)
    pixels = read_picture(picture(tmp_path / "b.tif", mask(), mode="1"), mask=True)
    np.testing.assert_array_equal(pixels.values, mask()[None])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_left_out_where_it_is_constant(mode, tmp_path):
    pixels = read_picture(picture(tmp_path / "a.png", mode=mode))
    assert "alpha" not in pixels.channels
    np.testing.assert_array_equal(pixels.values[0], noise())
    assert pixels.remarks == ("alpha, the same everywhere, is left out",)
    values = np.dstack([noise(), noise(), noise(), noise()])
    with pytest.raises(UserError, match="transparent in parts"):
        read_picture(picture(tmp_path / "b.png", values))


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_turned_pictures_are_refused_or_done_with_as_told(ending, tmp_path):
    exif = Image.Exif()
    exif[TURN] = 6
    file = picture(tmp_path / f"a.{ending}", noise(), exif=exif)
    with pytest.raises(UserError, match=r"EXIF orientation 6.*--exif apply or --exif ignore"):
        read_picture(file)
    assert read_picture(file, exif="ignore").size == SHAPE
    assert read_picture(file, exif="apply").size == SHAPE[::-1]
    with pytest.raises(UserError, match="stored turned"):
        read_picture(picture(tmp_path / "a.tif", tiffinfo={TURN: 6}), exif="apply")


@pytest.mark.parametrize(
    ("save", "said"),
    [
        ({"mode": "CMYK"}, "neither grey nor RGB, but CMYK"),
        (
            {"values": DEEP, "tiffinfo": {262: 0}},
            "neither grey with black as 0 nor RGB, but MINISWHITE",
        ),
    ],
)
def test_other_pictures_are_refused(save, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_picture(picture(tmp_path / "a.tif", **save))


def test_volumes_and_slices(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    pixels = read_volume(volume(tmp_path / "a.nii.gz", values))
    np.testing.assert_array_equal(pixels.values, values[None])
    assert pixels.geometry.spacing == pytest.approx((0.5, 0.5, 2.0))
    pixels = read_volume(volume(tmp_path / "b.nii", values[0]))
    assert pixels.size == (3, 4)
    pixels = read_volume(volume(tmp_path / "c.nii", np.stack([values, values + 1])))
    np.testing.assert_array_equal(pixels.values[1], values + 1)
    assert len(pixels.geometry.spacing) == 3
    assert pixels.channels == ("image_0", "image_1")
    (tmp_path / "d.nii").write_bytes(b"no NIfTI")
    with pytest.raises(UserError, match="cannot be read"):
        read_volume(tmp_path / "d.nii")


def test_a_dicom_series(tmp_path):
    values = np.arange(36, dtype=np.int16).reshape(3, 3, 4) - 1000
    folder = series(tmp_path / "a", values)
    pixels = read_series(folder)
    np.testing.assert_array_equal(pixels.values, values[None])
    assert pixels.channels == ("CT",)
    assert pixels.geometry.spacing == pytest.approx((0.5, 0.5, 2.0))
    series(folder, values, uid="4.5.6")
    with pytest.raises(UserError, match="holds 2 DICOM series"):
        read_series(folder)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"at": [0, 2, 4, 8]}, "misses slices: they lie 2 mm apart, but once 4 mm"),
        ({"at": [0, 2, 2, 4]}, "two slices at the same place"),
        ({"along": (0, 0.5, 1)}, "tilted gantry"),
    ],
)
def test_an_uneven_series_is_refused(odd, said, tmp_path, capfd):
    values = np.zeros((4, 3, 4), np.int16)
    with pytest.raises(UserError, match=said):
        read_series(series(tmp_path / "a", values, **odd))
    assert not capfd.readouterr().err


def test_inverted_grey_is_another_channel(tmp_path):
    values = np.zeros((2, 3, 4), np.int16)
    folder = series(tmp_path / "a", values, modality="DX")
    assert read_series(folder).channels == ("DX",)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))
    assert read_series(folder).channels == ("DX_inverted",)


def item(path):
    kinds = {".png": "picture", ".jpg": "picture", ".tif": "picture"}
    return Item(path.stem, path, path.suffix.strip("."), kinds.get(path.suffix, "volume"))


def case(image, its_mask):
    return Case("a", (item(image),), item(its_mask))


GEOMETRY = [
    ({"spacing": (0.5, 0.6, 2.0)}, "has another spacing"),
    ({"origin": (1.0, 2.0, 4.0)}, "has another origin"),
    ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "has another direction"),
]


@pytest.mark.parametrize(("odd", "said"), GEOMETRY)
def test_a_mask_elsewhere_is_refused(odd, said, tmp_path):
    values = np.zeros((2, 3, 4), np.uint8)
    image = volume(tmp_path / "i" / "a.nii.gz", values)
    with pytest.raises(UserError, match=f"m/a.nii.gz {said}"):
        read_case(case(image, volume(tmp_path / "m" / "a.nii.gz", values, **odd)), Reading())


def test_rounding_of_geometry_is_none(tmp_path):
    values = np.zeros((2, 3, 4), np.uint8)
    image = volume(tmp_path / "i.nii.gz", values)
    its_mask = volume(tmp_path / "m.nii.gz", values, origin=(1.001, 2.0, 3.0))
    images, read = read_case(case(image, its_mask), Reading())
    assert read.geometry == images[0].geometry


def test_sizes_that_differ_are_named(tmp_path):
    image = picture(tmp_path / "i" / "a.png")
    with pytest.raises(UserError, match=r"m/a.png is 5x4, i/a.png is 12x10$"):
        read_case(case(image, picture(tmp_path / "m" / "a.png", noise(4, 5))), Reading())
    with pytest.raises(UserError, match="one of them is turned"):
        read_case(case(image, picture(tmp_path / "m" / "b.png", noise(12, 10))), Reading())


def test_a_picture_is_the_mask_of_a_slice_but_nothing_of_a_picture_is_a_volume(tmp_path):
    plane = series_item("a", series(tmp_path / "a", np.zeros((1, *SHAPE), np.int16)))
    drawn = picture(tmp_path / "a.png", mask())
    _, read = read_case(Case("a", (plane,), item(drawn)), Reading())
    assert read.size == (1, *SHAPE)
    flat = volume(tmp_path / "m.nii", mask())
    with pytest.raises(UserError, match=r"their rows need not run the same way; .* as PNG$"):
        read_case(case(drawn, flat), Reading())
    with pytest.raises(UserError, match=r"their rows need not run the same way; .* as nii$"):
        read_case(case(flat, drawn), Reading())


def test_broken_files_and_pixels_that_are_no_numbers_are_named(tmp_path):
    good = picture(tmp_path / "good.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:60])
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    for bad in (cut, empty):
        with pytest.raises(UserError, match=f"{bad.name} cannot be read"):
            read_case(case(bad, good), Reading())
    values = noise().astype(np.float32)
    values[2, 2] = np.nan
    with pytest.raises(UserError, match="NaN or infinite"):
        read_case(case(picture(tmp_path / "nan.tif", values), good), Reading())


def test_coloured_masks_are_read_as_they_are(tmp_path):
    values = coloured((255, 0, 0))
    _, read = read_case(case(picture(tmp_path / "a.png", values), tmp_path / "a.png"), Reading())
    np.testing.assert_array_equal(read.values, np.moveaxis(values, -1, 0))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations_are_refused(ending, tmp_path):
    more = {"save_all": True, "append_images": [Image.fromarray(noise(seed=1))]}
    with pytest.raises(UserError, match="is an animation of 2 pictures"):
        read_picture(picture(tmp_path / f"a.{ending}", **more))


@pytest.mark.parametrize("values", [noise(), noise(*SHAPE, 3), DEEP])
def test_pgm_and_ppm_are_read_as_they_are(values, tmp_path):
    file = picture(tmp_path / ("a.ppm" if values.ndim == 3 else "a.pgm"), values)
    pixels = read_picture(file)
    assert pixels.values.dtype == values.dtype
    np.testing.assert_array_equal(pixels.values, np.atleast_3d(values).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("head", "bytes_"),
    [
        (b"P5\n# three classes\n4 1\n3\n", b"\0\1\2\3"),
        (b"P2 4 1 3\n", b"0 1 2 3"),
        (b"P6 1 1 65535\n", b"\0\1" * 3),
    ],
)
def test_what_pil_would_stretch_or_cut_is_refused(head, bytes_, tmp_path):
    (tmp_path / "a.pgm").write_bytes(head + bytes_)
    with pytest.raises(UserError, match=r"has (3|65535) as its largest value"):
        read_picture(tmp_path / "a.pgm")


def test_webp_without_loss_is_a_mask_and_with_loss_is_none(tmp_path):
    image, truth = noise(64, 64), np.zeros((64, 64), np.uint8)
    truth[9:40, 13:50] = 255
    for name, lossless in (("in", True), ("lossy", False)):
        picture(tmp_path / name / "images" / "a.webp", image, mode="RGB", lossless=True)
        picture(tmp_path / name / "masks" / "a.webp", truth, mode="RGB", lossless=lossless)
    result = imported(tmp_path / "in")
    np.testing.assert_array_equal(read(result.target / "labelsTr" / "a.png"), truth // 255)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lossy").rename(tmp_path / "elsewhere" / "in")
    with pytest.raises(UserError, match=r"WebP smears them|different (values|colours)"):
        imported(tmp_path / "elsewhere" / "in")
