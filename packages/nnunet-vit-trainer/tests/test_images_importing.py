"""A folder becomes a data set that holds what the folder held: whole, or not at all."""

import json
import os

import numpy as np
import pytest
import SimpleITK
from image_folders import (
    NAME,
    SHAPE,
    coloured,
    imported,
    mask,
    noise,
    picture,
    read,
    series,
    two_photos,
    volume,
    written,
)
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from nnunet_vit_trainer.checkpoints import files
from nnunet_vit_trainer.images import importing
from vit_backbone import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    return two_photos(tmp_path / "in")


def described(result):
    return json.loads((result.target / "dataset.json").read_text())


def test_masks_as_gif_keep_what_their_colours_mean(folder):
    for file in (folder / "masks").iterdir():
        file.unlink()
    for name in ("a", "b (1)"):
        picture(folder / "masks" / f"{name}.gif", np.dstack([mask()] * 3))
    result = imported(folder)
    for name in ("a", "b (1)"):
        np.testing.assert_array_equal(read(result.target / "labelsTr" / f"{name}.png"), mask(1))


def test_colours_beside_grey_are_files_that_nnunet_reads_together(tmp_path):
    for number, name in enumerate("ab"):
        case = tmp_path / "in" / name
        picture(case / "colour.png", noise(*SHAPE, 3, seed=number))
        picture(case / "depth.png", noise(seed=number + 9))
        picture(case / "mask.png", mask())
    result = imported(tmp_path / "in")
    files = sorted(map(str, (result.target / "imagesTr").glob("a_*")))
    values, _ = NaturalImage2DIO().read_images(files)
    np.testing.assert_array_equal(values[:3, 0], np.moveaxis(noise(*SHAPE, 3, seed=0), -1, 0))
    np.testing.assert_array_equal(values[3:, 0], noise(seed=9)[None])
    assert len(described(result)["channel_names"]) == 4


def test_photos_and_masks_become_a_data_set(folder):
    result = imported(folder)
    assert result.target == folder.parent / "raw" / NAME
    for number, name in enumerate(("a", "b (1)")):
        image = read(result.target / "imagesTr" / f"{name}_0000.png")
        np.testing.assert_array_equal(image, noise(*SHAPE, 3, seed=number))
        np.testing.assert_array_equal(read(result.target / "labelsTr" / f"{name}.png"), mask(1))
    assert described(result) == {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": 2,
        "file_ending": ".png",
        "licence": "not said",
        "channels_in_files": [["R", "G", "B"]],
        "converted_by": "nnUNetv2_import_images_vit",
        "description": "The masks' values were background=0 foreground=255",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    assert written(folder) == [NAME]


def test_check_writes_nothing_and_finds_the_same(folder):
    checked = imported(folder, check=True)
    assert written(folder) == []
    assert imported(folder) == checked


def test_jpeg_is_kept_as_it_was_decoded_and_said_colours_are_labels(folder):
    for file in (folder / "images").iterdir():
        picture(file.with_suffix(".jpg"), read(file))
        file.unlink()
        picture(folder / "masks" / f"{file.stem}_mask.png", coloured((255, 0, 0), (0, 0, 255)))
    result = imported(folder, labels=["blue=#0000ff", "red=#ff0000"])
    image = read(result.target / "imagesTr" / "a_0000.png")
    np.testing.assert_array_equal(image, read(folder / "images" / "a.jpg"))
    assert read(result.target / "labelsTr" / "a.png")[:3, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_are_read_by_nnunet_as_they_were(dtype, tmp_path):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    values = (np.arange(120).reshape(SHAPE) * 499.0).astype(dtype)
    picture(tmp_path / "in" / "a.tif", values)
    picture(tmp_path / "in" / "a_mask.png", mask(1))
    result = imported(tmp_path / "in")
    ending = described(result)["file_ending"]
    assert ending == {"uint16": ".png", "float32": ".tif"}[np.dtype(dtype).name]
    read, _ = NaturalImage2DIO().read_images([str(result.target / "imagesTr" / f"a_0000{ending}")])
    np.testing.assert_array_equal(read[0, 0], values)
    read, _ = NaturalImage2DIO().read_seg(str(result.target / "labelsTr" / f"a{ending}"))
    np.testing.assert_array_equal(read[0, 0], mask(1))


def test_colours_of_16_bits_become_a_file_each(tmp_path):
    values = np.stack([noise().astype(np.uint16) * 250 + number for number in range(3)], -1)
    image = SimpleITK.GetImageFromArray(values, isVector=True)
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / "a.tif"))
    picture(tmp_path / "in" / "a_mask.png", mask(1))
    result = imported(tmp_path / "in")
    for number in range(3):
        plane = read(result.target / "imagesTr" / f"a_{number:04d}.png")
        np.testing.assert_array_equal(plane, values[..., number])


def test_volumes_keep_their_place_and_channels_their_names(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name in ("t1", "flair"):
        volume(tmp_path / "in" / "P1" / f"P1_{name}.nii.gz", values)
    volume(tmp_path / "in" / "P1" / "P1_seg.nii.gz", (values > 20).astype(np.float64))
    result = imported(tmp_path / "in")
    assert described(result)["channel_names"] == {"0": "flair", "1": "t1"}
    assert described(result)["file_ending"] == ".nii.gz"
    for name in ("imagesTr/P1_0001.nii.gz", "labelsTr/P1.nii.gz"):
        image = SimpleITK.ReadImage(str(result.target / name))
        assert image.GetSpacing() == pytest.approx((0.5, 0.5, 2.0))
        assert image.GetOrigin() == pytest.approx((1.0, 2.0, 3.0))
    assert image.GetPixelID() == SimpleITK.sitkUInt8
    assert SimpleITK.GetArrayFromImage(image).sum() == 3


def test_dicom_series_with_masks_of_nifti(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000
    folder = series(tmp_path / "in" / "P1" / "scan" / "deep", values)
    volume(tmp_path / "in" / "P1" / "mask.nii", (values > -990).astype(np.uint8), origin=(0, 0, 0))
    result = imported(tmp_path / "in")
    assert described(result)["channel_names"] == {"0": "CT"}
    image = SimpleITK.ReadImage(str(result.target / "imagesTr" / "P1_0000.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), values)
    assert folder.is_dir()


def test_single_slices_are_2d_images_of_their_spacing(tmp_path):
    for name in ("a", "b"):
        series(tmp_path / "in" / "images" / name, np.zeros((1, *SHAPE), np.int16))
        picture(tmp_path / "in" / "masks" / f"{name}.png", mask(255))
    result = imported(tmp_path / "in")
    assert result.flat
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        image = SimpleITK.ReadImage(str(result.target / f"{name}.nii.gz"))
        assert image.GetSize() == SHAPE[::-1]
        assert image.GetSpacing() == pytest.approx((0.5, 0.5))


def test_test_images_are_written_alike(folder):
    picture(folder / "imagesTs" / "t.png", noise(*SHAPE, 3))
    result = imported(folder)
    assert [f.name for f in (result.target / "imagesTs").iterdir()] == ["t_0000.png"]
    assert described(result)["numTraining"] == 2


def test_a_full_disk_leaves_nothing(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "write_mask", full)
    with pytest.raises(UserError, match=r"Dataset042_Mine is not imported: .*No space left"):
        imported(folder)
    assert written(folder) == []


def test_a_killed_import_blocks_nobody_and_is_cleared(folder):
    """Its folder says whose it is: a process that began at another time, of a number long gone."""
    left = folder.parent / "raw" / f".{NAME}.{files._place()}-{2**22 + 1}-1-{'0' * 8}.tmp"
    (left / "imagesTr").mkdir(parents=True)
    imported(folder)
    assert written(folder) == [NAME]


def test_of_two_imports_at_once_one_is_there_whole(folder, monkeypatch):
    def slow(*arguments, **options):
        monkeypatch.setattr(importing, "generate_dataset_json", write)
        imported(folder)
        write(*arguments, **options)

    write = importing.generate_dataset_json
    monkeypatch.setattr(importing, "generate_dataset_json", slow)
    with pytest.raises(UserError, match="_Mine is there already; 43 is free"):
        imported(folder)
    assert written(folder) == [NAME]


def test_of_two_names_at_once_one_has_the_number(folder, monkeypatch):
    """nnU-Net takes none of two data sets of one number by it any more."""
    write = importing._write_case
    other = folder.parent / "raw" / f"{NAME[:10]}_Other"

    def and_another(*of, **options):
        other.mkdir(exist_ok=True)
        write(*of, **options)

    monkeypatch.setattr(importing, "_write_case", and_another)
    with pytest.raises(UserError, match="_Other is there already; 43 is free"):
        imported(folder)
    assert written(folder) == [other.name]


def test_a_folder_that_another_machine_writes_is_left_for_a_day(tmp_path):
    other = tmp_path / f".x.{'0' * 12}-1-1-{'0' * 8}.tmp"
    other.mkdir()
    with files.folder_written_whole(tmp_path / "a"):
        pass
    assert other.is_dir()
    os.utime(other, (1, 1))
    with files.folder_written_whole(tmp_path / "b"):
        pass
    assert not other.exists()
