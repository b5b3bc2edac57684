"""A folder becomes a data set that holds what the folder held: whole, or not at all."""

import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import SimpleITK
from image_folders import SHAPE, coloured, mask, noise, picture, series, volume
from PIL import Image
from rich.console import Console

from nnunet_vit_trainer.checkpoints import files
from nnunet_vit_trainer.commands.import_images import import_images as command
from nnunet_vit_trainer.images import importing
from nnunet_vit_trainer.images.importing import Request, import_images
from nnunet_vit_trainer.images.page import print_page
from vit_backbone import UserError

NAME = "Dataset042_Mine"


@pytest.fixture(autouse=True)
def no_other_data_sets(monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def folder(tmp_path):
    """Two photos with masks of 0 and 255."""
    for number, name in enumerate(("a", "b (1)")):
        picture(tmp_path / "in" / "images" / f"{name}.png", noise(*SHAPE, 3, seed=number))
        picture(tmp_path / "in" / "masks" / f"{name}_mask.png", mask(255))
    return tmp_path / "in"


def imported(folder, *, check=False, **request):
    raw = folder.parent / "raw"
    return import_images(Request(folder, 42, "Mine", **request), raw, check=check)


def described(result):
    return json.loads((result.target / "dataset.json").read_text())


def read(file):
    return np.asarray(Image.open(file))


def written(folder):
    root = folder.parent / "raw"
    return sorted(path.name for path in root.iterdir()) if root.is_dir() else []


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


def spoil_size(folder):
    picture(folder / "masks" / "a_mask.png", mask(255, shape=(9, 12)))


def spoil_value(folder):
    picture(folder / "masks" / "a_mask.png", mask(254))


def spoil_pair(folder):
    (folder / "masks" / "a_mask.png").unlink()


def spoil_mode(folder):
    picture(folder / "images" / "a.png", noise())


def spoil_depth(folder):
    for name in ("a", "b (1)"):
        picture(
            folder / "images" / f"{name}.png",
            noise().astype(np.uint16 if name == "a" else np.uint8),
        )


def spoil_bytes(folder):
    file = folder / "images" / "a.png"
    file.write_bytes(file.read_bytes()[:-30])


def spoil_empty(folder):
    for file in (folder / "masks").iterdir():
        picture(file, mask(0))


def spoil_test(folder):
    picture(folder / "test" / "t.png", noise())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_size, "masks/a_mask.png is 12x9, images/a.png is 12x10"),
        (spoil_value, "values 0, 254, 255 .*254 in 1 of 2 masks, such as masks/a_mask.png"),
        (spoil_pair, r"1 images have no mask: images/a.png \(--skip_unpaired"),
        (spoil_mode, r"2 kinds: 1 grey, 8 bit \(images/a.png\); 1 RGB, 8 bit \(images/b \(1\).png"),
        (spoil_depth, r"2 kinds: 1 grey, 16 bit \(images/a.png\); 1 grey, 8 bit"),
        (spoil_bytes, "images/a.png cannot be read"),
        (spoil_empty, "all 2 masks are background"),
        (spoil_test, r"2 kinds: 2 RGB, 8 bit .*; 1 grey, 8 bit \(test/t.png"),
    ],
)
def test_what_is_doubtful_is_refused_by_name_and_nothing_is_written(spoil, said, folder):
    spoil(folder)
    with pytest.raises(UserError, match=said):
        imported(folder)
    assert written(folder) == []


def test_unpaired_files_are_left_out_where_that_is_said(folder):
    spoil_pair(folder)
    result = imported(folder, skip_unpaired=True)
    assert [f.name for f in (result.target / "labelsTr").iterdir()] == ["b (1).png"]
    assert "left out, for want of a mask: images/a.png" in page_of(result)


@pytest.mark.parametrize("number", [0, 1000, -3])
def test_an_id_that_nnunet_has_not_is_refused(number, folder):
    with pytest.raises(UserError, match="an ID from 1 to 999"):
        import_images(Request(folder, number, "Mine"), folder.parent / "raw")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "ä", "a/b"])
def test_a_name_that_commands_would_stumble_over_is_refused(name, folder):
    with pytest.raises(UserError, match="letters, digits"):
        import_images(Request(folder, 42, name), folder.parent / "raw")


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_an_id_that_is_taken_is_refused_with_a_free_one(variable, folder, monkeypatch):
    """nnU-Net looks for the number in all three, and stops where there are two names."""
    root = folder.parent / variable.removeprefix("nnUNet_")
    monkeypatch.setenv(variable, str(root))
    for taken in ("Dataset042_Other", "Dataset043_x"):
        (root / taken).mkdir(parents=True)
    with pytest.raises(UserError, match=r"Dataset042_Other is there already; 44 is free"):
        imported(folder)


def test_a_name_of_channels_for_each_is_expected(folder):
    with pytest.raises(
        UserError, match=r"--channels names 1, the images have 3 channels \(R, G, B"
    ):
        imported(folder, channels=["CT"])
    result = imported(folder, channels=["rgb_to_0_1"] * 3)
    assert described(result)["channel_names"]["2"] == "rgb_to_0_1"


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
    with pytest.raises(UserError, match="it is there by now"):
        imported(folder)
    assert written(folder) == [NAME]


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


def test_the_command_prints_a_page_or_one_line(folder, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(folder.parent / "raw"))
    monkeypatch.setattr(sys, "argv", ["import_images", str(folder), "-d", "42", "-n", "Mine"])
    command()
    assert NAME in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
