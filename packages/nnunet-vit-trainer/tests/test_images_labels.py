"""Which value of the masks is which label: as it is plain to see, or as it was said."""

import json

import numpy as np
import pytest
from image_folders import coloured, mask, noise

from nnunet_vit_trainer.images.masks.labels import Labelling, decide
from nnunet_vit_trainer.images.masks.named import parse_labels
from nnunet_vit_trainer.images.masks.values import Values, count
from nnunet_vit_trainer.images.reading.pixels import Pixels
from vit_backbone import UserError


def grey(values):
    return Pixels(np.asarray(values)[None], ("grey",))


def rgb(values):
    return Pixels(np.moveaxis(np.asarray(values), -1, 0), ("R", "G", "B"))


def holding(*values, coloured=False, palette=None):
    return Values(dict.fromkeys(values, 10), coloured, palette or {})


def decided(*masks, labels=None, threshold=None):
    named = parse_labels(labels) if labels else None
    return decide({f"{i}.png": m for i, m in enumerate(masks)}, named, threshold).values


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([holding(0, 255)], {"background": (0,), "foreground": (255,)}),
        ([holding(0, 1), holding(0)], {"background": (0,), "foreground": (1,)}),
        ([holding(0, 1), holding(0, 2)], {"background": (0,), "label_1": (1,), "label_2": (2,)}),
        ([holding(0, 0xFF0000, coloured=True)], {"background": (0,), "foreground": (0xFF0000,)}),
        (
            [holding(0, 1, palette={0: 0xFFFFFF, 1: 0}), holding(1, palette={1: 0})],
            {"background": (0,), "foreground": (0xFFFFFF,)},
        ),
    ],
)
def test_what_is_plain_to_see(masks, expected):
    assert decided(*masks) == expected


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([holding(0), holding(0)], "all 2 masks are background"),
        ([holding(0, 255), holding(0, 1)], "values 0, 1, 255 .*such as"),
        ([holding(0, 255), holding(0, 255), holding(0, 1)], "1 in 1 of 3 masks, such as 2.png"),
        ([holding(0, 50, 100)], "--labels NAME1=50 NAME2=100$"),
        ([holding(0, 1, 2, 255)], "NAME3=255 .ignore=255, if that is what nobody annotated"),
        ([holding(1, 2, 3)], "--labels background=1 NAME1=2 NAME2=3"),
        ([holding(*range(0, 256, 3))], "smoothed edges. --threshold 128 makes two classes"),
        ([holding(*range(58))], "single objects. --threshold 1 makes one class"),
        ([holding(0, 0xFF0000, 0xFF00, coloured=True)], "NAME1=#00ff00 NAME2=#ff0000"),
        ([holding(0, 1, 2), holding(0, 0xFF0000, coloured=True)], "colours #000000, #010101, #0"),
        (
            [holding(0, 1, palette={0: 0, 1: 255}), holding(0, 1, palette={0: 0, 1: 65280})],
            "value 1 is #0000ff in 0.png and #00ff00 in 1.png: each has a palette of its own",
        ),
        ([holding(0, 1, 2, palette={0: 65280, 1: 255, 2: 0})], "NAME1=#0000ff NAME2=#00ff00"),
        ([holding(0, 1, palette={0: 0xFFFFFF, 1: 255})], "background=#0000ff NAME1=#ffffff"),
    ],
)
def test_what_is_not_plain_is_refused_with_what_to_give(masks, said):
    with pytest.raises(UserError, match=said):
        decided(*masks)


def test_labels_are_numbered_as_they_were_given_and_ignore_is_the_last():
    masks = [holding(0, 7, 8, 50, 255)]
    values = decided(*masks, labels=["ignore=255", "b=50", "a=7,8"])
    assert values == {"background": (0,), "b": (50,), "a": (7, 8), "ignore": (255,)}
    assert Labelling(values).numbers == {"background": 0, "b": 1, "a": 2, "ignore": 3}
    values = decided(holding(1, 2), labels=["cell=1", "background=2"])
    assert Labelling(values).by_value == {2: 0, 1: 1}


@pytest.mark.parametrize(
    ("masks", "labels", "said"),
    [
        (
            [holding(0, 255), holding(0, 254, 255)],
            ["vessel=255"],
            r"1.png has 10 pixels of 254 \(nearest: vessel, 255\): --labels names all",
        ),
        (
            [holding(0, 0xFE0001, coloured=True)],
            ["a=#ff0000", "b=#0000ff"],
            r"0.png has 10 pixels of #fe0001 \(nearest: a, #ff0000\)",
        ),
        (
            [holding(0, 0xFE, coloured=True)],
            ["a=254"],
            "0.png has colours, but --labels names values",
        ),
        ([holding(0), holding(0)], ["a=1"], "all 2 masks are background everywhere"),
        ([holding(0, 1, 2, 3)], ["a=1"], "0.png has 10 pixels of 2 .*, and 1 other values"),
        (
            [holding(0, 1, 2, palette={0: 0, 1: 0x646464, 2: 0xC8C8C8})],
            ["a=100", "b=200"],
            "0.png has 10 pixels of 1, shown as #646464, .nearest",
        ),
    ],
)
def test_values_that_nobody_named_are_refused(masks, labels, said):
    with pytest.raises(UserError, match=said):
        decided(*masks, labels=labels)


def test_grey_and_palette_masks_are_colours_where_colours_are_named():
    palette = {0: 0, 1: 0xFF0000}
    labels = ["red=#ff0000", "white=#ffffff"]
    masks = [holding(0, 255), holding(0, 1, palette=palette)]
    labelling = decide(dict(enumerate(masks)), parse_labels(labels), None)
    with_palette = Pixels(mask(1)[None], ("grey",), palette=palette)
    assert np.unique(labelling.apply(with_palette)).tolist() == [0, 1]
    assert np.unique(labelling.apply(grey(mask(255)))).tolist() == [0, 2]
    assert labelling.apply(rgb(coloured((255, 0, 0), (255, 255, 255))))[:3, 0].tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a=red"], "--labels: a='red': a value .255. or a colour"),
        (["a="], "a='': a value"),
        (["=3"], "each label has a name"),
        (["a=1", "a=2"], "each label has a name of its own"),
        (["a=1", "b=1"], "a and b have the same value, 1"),
        (["a=0"], "background and a have the same value, 0"),
        (["a=1", "b=#ff0000"], "values or colours are expected"),
        (["background=0"], "1 to 199 labels beside background"),
        (["nowhere.yaml"], "--labels nowhere.yaml: cannot be read"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(labels, said):
    with pytest.raises(UserError, match=said):
        parse_labels(labels)


def test_background_and_ignore_may_be_written_with_capitals():
    named = parse_labels(["Ignore=64", "Vessel=255", "BACKGROUND=1"])
    assert named.values == {"background": (1,), "Vessel": (255,), "ignore": (64,)}
    with pytest.raises(UserError, match="'ignore': each label has a name of its own"):
        parse_labels(["Ignore=64", "vessel=255", "ignore=1"])


def test_a_file_of_labels(tmp_path):
    (tmp_path / "l.yaml").write_text("vessel: 255\nlesion: [7, 8]\n")
    values = {"background": (0,), "vessel": (255,), "lesion": (7, 8)}
    assert parse_labels([str(tmp_path / "l.yaml")]).values == values
    (tmp_path / "l.json").write_text(json.dumps({"red": "#ff0000"}))
    assert parse_labels([str(tmp_path / "l.json")]).by_colour
    (tmp_path / "l.yaml").write_text("red: #ff0000\n")  # which is a comment
    with pytest.raises(UserError, match=r"red='None': .*in YAML a colour is in quotes"):
        parse_labels([str(tmp_path / "l.yaml")])
    (tmp_path / "l.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="a mapping with labels with their values is expected"):
        parse_labels([str(tmp_path / "l.yaml")])


def test_masks_that_are_counted():
    assert count(grey(mask(255))).pixels == {0: 100, 255: 20}
    assert count(rgb(np.repeat(mask(9)[..., None], 3, -1))).pixels == {0: 100, 9: 20}
    assert count(grey(mask(1).astype(np.float64))).pixels == {0: 100, 1: 20}
    assert count(grey(mask(1).astype(np.int16) - 1)).pixels == {-1: 100, 0: 20}
    found = count(rgb(coloured((255, 0, 0))))
    assert found.coloured
    assert found.pixels == {0: 108, 0xFF0000: 12}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (grey(mask(1) / 2), "no whole numbers"),
        (grey(np.where(mask(1), np.inf, 0)), "no whole numbers"),
        (grey(np.arange(400).reshape(20, 20)), "400 different values .single objects."),
        (rgb(noise(20, 20, 3)), "different colours .smoothed or JPEG"),
        (Pixels(noise(2, 4, 4), ("a", "b")), "has 2 channels; one is expected"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_masks_of_no_classes_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        count(values)


def test_a_threshold_makes_two_classes_of_what_jpeg_smeared():
    smeared = np.repeat(mask(250)[..., None], 3, -1)
    smeared[5:, :, 0] = 9
    assert count(rgb(smeared), 128).pixels == {0: 100, 1: 20}
    labelling = decide({"a": count(rgb(smeared), 128)}, None, 128)
    np.testing.assert_array_equal(labelling.apply(rgb(smeared)), mask(1))
    with pytest.raises(UserError, match="has colours; --threshold is for masks of grey"):
        count(rgb(coloured((255, 0, 0))), 128)
    shown = Pixels(mask(1)[None], ("grey",), palette={0: 0, 1: 0xFFFFFF})
    assert count(shown, 128).pixels == {0: 100, 1: 20}


def test_masks_of_jpeg_are_told_from_classes():
    masks = {"masks/a.jpg": holding(0, 1, 254, 255)}
    with pytest.raises(UserError, match="JPEG or WebP smears them: --threshold 128 makes two"):
        decide(masks, None, None)
