"""What is doubtful is refused with its name, and nothing is written."""

import json

import numpy as np
import pytest
from image_folders import imported, mask, noise, picture, two_photos, written

from nnunet_vit_trainer.images.importing import import_images
from nnunet_vit_trainer.images.request import Request
from vit_backbone import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    return two_photos(tmp_path / "in")


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"test": "images"}, "--test .*images: a folder of its own"),
        ({"test": "masks/../masks"}, "--test .*masks: a folder of its own"),
        ({"threshold": 0}, "--threshold 0: at least 1"),
        ({"threshold": -128}, "--threshold -128: at least 1"),
        ({"channels": ["R", " ", "B"]}, "--channels: an empty name"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, said, folder):
    with pytest.raises(UserError, match=said):
        imported(folder, **options)
    assert written(folder) == []


def test_a_name_of_channels_for_each_is_expected(folder):
    with pytest.raises(
        UserError, match=r"--channels names 1, the images have 3 channels \(R, G, B"
    ):
        imported(folder, channels=["CT"])
    result = imported(folder, channels=["rgb_to_0_1"] * 3)
    description = json.loads((result.target / "dataset.json").read_text())
    assert description["channel_names"]["2"] == "rgb_to_0_1"
