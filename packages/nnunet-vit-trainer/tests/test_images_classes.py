"""Masks in a folder for each class become one mask, or are refused with the file's name."""

import itertools
import json

import numpy as np
import pytest
from image_folders import SHAPE, coloured, imported, mask, noise, picture, read, written
from PIL import Image

from nnunet_vit_trainer.images.notes import counted_labels
from vit_backbone import UserError


def at(row, value=255):
    """A mask with one row of a value."""
    values = np.zeros(SHAPE, np.uint8)
    values[row] = value
    return values


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    for number, name in enumerate("ab"):
        picture(tmp_path / "in" / "images" / f"{name}.png", noise(seed=number))
        picture(tmp_path / "in" / "masks" / "optic disc" / f"{name}_mask.png", at(1))
        picture(tmp_path / "in" / "masks" / "cup" / f"{name}_mask.png", at(2, 1))
    return tmp_path / "in"


def expected(**rows):
    values = np.zeros(SHAPE, np.uint8)
    for number, row in rows.items():
        values[row] = int(number[1:])
    return values


def test_folders_of_classes_become_labels(folder):
    result = imported(folder)
    description = json.loads((result.target / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "cup": 1, "optic disc": 2}
    truth = read(result.target / "labelsTr" / "a.png")
    np.testing.assert_array_equal(truth, expected(n1=2, n2=1))


@pytest.mark.parametrize("names", [("background", "ignore"), ("Background", "IGNORE")])
def test_background_and_ignore_are_what_they_are(names, folder):
    """With capitals too, where nnU-Net would train Ignore as a class."""
    for row, name in zip((4, 3), names, strict=True):
        for image in "ab":
            picture(folder / "masks" / name / f"{image}.png", at(row))
    result = imported(folder)
    assert result.labelling.numbers == {"background": 0, "cup": 1, "optic disc": 2, "ignore": 3}
    truth = read(result.target / "labelsTr" / "b.png")
    np.testing.assert_array_equal(truth, expected(n1=2, n2=1, n3=3))


def test_two_spellings_of_ignore_are_refused(folder):
    for spelling, name in itertools.product(("IGNORE", "Ignore"), "ab"):
        picture(folder / "masks" / spelling / f"{name}.png", at(3))
    with pytest.raises(UserError, match=r"masks has ignore in two spellings; leave one$"):
        imported(folder)


def test_of_a_palette_the_colours_count(folder):
    for name in "ab":
        (folder / "masks" / "cup" / f"{name}_mask.png").unlink()
        image = Image.fromarray((at(2) == 0).astype(np.uint8))  # as PIL's own GIFs may be: 1 black
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(folder / "masks" / "cup" / f"{name}_mask.gif")
    for threshold in (None, 128):
        result = imported(folder, threshold=threshold, check=True)
        counted = counted_labels(result)
        assert {name: pixels for name, (pixels, _) in counted.items() if name != "background"} == {
            "cup": 2 * SHAPE[1],
            "optic disc": 2 * SHAPE[1],
        }


def test_classes_that_overlap_are_refused(folder):
    picture(folder / "masks" / "cup" / "b_mask.png", at(1))
    with pytest.raises(
        UserError, match=r"optic disc/b_mask.png and cup/b_mask.png overlap in 12 pixels"
    ):
        imported(folder)
    assert written(folder) == []


def test_a_class_without_a_file_is_absent_only_where_that_is_said(folder):
    (folder / "masks" / "cup" / "b_mask.png").unlink()
    with pytest.raises(UserError, match=r"images/b.png in cup/; --missing_is_absent"):
        imported(folder)
    result = imported(folder, missing_is_absent=True)
    # The class that is there keeps its number.
    np.testing.assert_array_equal(read(result.target / "labelsTr" / "b.png"), expected(n2=1))


def test_an_image_without_any_class_has_no_mask(folder):
    for name in ("cup", "optic disc"):
        (folder / "masks" / name / "b_mask.png").unlink()
    with pytest.raises(UserError, match=r"1 images have no mask: images/b.png"):
        imported(folder, missing_is_absent=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (at(2) + at(3, 100), "cup/a_mask.png has 2 values beside 0"),
        (coloured((255, 0, 0), (0, 255, 0)), "cup/a_mask.png has 2 values beside 0"),
        (mask(255, shape=(9, 12)), "cup/a_mask.png is 12x9|optic disc/a_mask.png is 12x10"),
    ],
)
def test_what_is_no_mask_of_one_class_is_refused(values, said, folder):
    picture(folder / "masks" / "cup" / "a_mask.png", values)
    with pytest.raises(UserError, match=said):
        imported(folder)


def test_smoothed_masks_take_a_threshold(folder):
    picture(folder / "masks" / "cup" / "a_mask.png", at(2, 200) + at(3, 100))
    picture(folder / "masks" / "cup" / "b_mask.png", at(2))
    result = imported(folder, threshold=128)
    truth = read(result.target / "labelsTr" / "a.png")
    np.testing.assert_array_equal(truth, expected(n1=2, n2=1))


def test_the_labels_are_the_folders(folder):
    with pytest.raises(UserError, match=r"the folders of masks name them \(cup, optic disc\)"):
        imported(folder, labels=["cup=255"])


def test_an_option_for_folders_of_classes_is_not_ignored(folder):
    (folder / "masks" / "cup").rename(folder / "cup")
    with pytest.raises(UserError, match="--missing_is_absent is for a folder of masks for each"):
        imported(folder, masks="cup", missing_is_absent=True)


def test_masks_of_no_image_and_other_files_are_told(folder):
    picture(folder / "masks" / "cup" / "z_mask.png", at(1))
    (folder / "masks" / "empty").mkdir()
    (folder / "masks" / "cup" / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"1 masks have no image: cup/z_mask.png"):
        imported(folder)
    result = imported(folder, skip_unpaired=True)
    assert result.found.left_alone == ["masks/cup/notes.txt", "masks/empty/"]
