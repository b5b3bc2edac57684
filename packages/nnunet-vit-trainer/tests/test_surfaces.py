"""Surface metrics of masks: by hand, with an ignore label, with regions, kept, missing."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from fake_results import stock_plans, write_fold, write_mask, write_model
from PIL import Image
from trained_results import DATASET_JSON

from nnunet_vit_trainer.results.comparison import surfaces
from nnunet_vit_trainer.results.comparison.result import read_results
from nnunet_vit_trainer.results.comparison.surfaces import KEPT, measure_surfaces, unit_of
from vit_backbone import UserError

LEFT, SHIFTED = (slice(5, 15), slice(5, 15)), (slice(5, 15), slice(8, 18))
DIAGONAL = math.hypot(20, 30)


def measured(home, labels=None, tolerance=1.0, order=None):
    """Measure the one fold of a model whose masks lie beside ``truth``."""
    dataset = DATASET_JSON | ({"labels": labels} if labels else {})
    dataset |= {"regions_class_order": order} if order else {}
    (folder,) = (home / "results").glob("Dataset*/nnUNetTrainer__*")
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (result,), _ = read_results(folder.parent, ["0"])
    count = []
    measure_surfaces(result, home / "truth", tolerance, lambda: count.append(1))
    return result, len(count)


@pytest.fixture
def home(tmp_path):
    """A validation of one case: a square of class 1, which was found three pixels to the right."""
    fold = write_fold(write_model(tmp_path / "results"), 0, {"x": [0.7, None]})
    write_mask(fold / "validation" / "x.png", SHIFTED)
    write_mask(tmp_path / "truth" / "x.png", LEFT)
    return tmp_path


def test_a_shifted_square(home):
    result, _ = measured(home)
    surface = result.surfaces["0"]
    assert surface.hd95 == 3.0
    assert 0.3 < surface.dice < 0.7  # of upper and lower edge, seven of ten pixels
    assert measured(home, tolerance=3.0)[0].surfaces["0"].dice == 1.0
    assert unit_of(result) == "px"


def test_it_is_kept_until_the_validation_or_the_tolerance_is_another_one(home):
    assert measured(home)[1] == 1
    assert measured(home)[1] == 0
    assert measured(home)[0].surfaces["0"].hd95 == 3.0
    assert measured(home, tolerance=2.0)[1] == 1
    summary = next(home.rglob("summary.json"))
    summary.write_text(summary.read_text() + "\n")
    assert measured(home, tolerance=2.0)[1] == 1
    kept = next(home.rglob(KEPT.rsplit("/", 1)[1]))
    whole = kept.read_text()
    for broken in ('{"measured"', whole.replace(", true]", "]"), whole.replace("[", '["a", ')):
        assert broken != whole
        kept.write_text(broken)
        assert measured(home, tolerance=2.0)[1] == 1


def test_a_class_that_only_one_mask_has_is_as_far_away_as_the_image_is_large(home):
    write_mask(next(home.rglob("validation")) / "x.png", SHIFTED, label=2)
    surface = measured(home)[0].surfaces["0"]
    assert (surface.dice, surface.hd95) == (0.0, pytest.approx(DIAGONAL))


def test_what_is_ignored_counts_in_neither_mask(home):
    write_mask(home / "truth" / "x.png", LEFT, label=1)
    labels = {"background": 0, "a": 1, "ignore": 2}
    truth = np.full((20, 30), 2, dtype=np.uint8)
    truth[5:15, 8:15] = 1
    truth[:5], truth[15:] = 0, 0
    Image.fromarray(truth).save(home / "truth" / "x.png")
    surface = measured(home, labels)[0].surfaces["0"]
    assert (surface.dice, surface.hd95) == (1.0, 0.0)


def test_regions_are_measured_as_nnunet_validates_them(home):
    write_mask(next(home.rglob("validation")) / "x.png", LEFT, label=2)
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    result, _ = measured(home, labels, order=[1, 2])
    kept = json.loads(next(home.rglob("surface_metrics.json")).read_text())
    assert kept["cases"]["x.png"] == {
        "(1, 2)": [1.0, 0.0, True],
        "2": [0.0, pytest.approx(DIAGONAL), False],
    }
    assert "1 of 2 surfaces are in one of the two masks only" in result.notes[-1]
    assert result.surfaces["0"].dice == 0.5


def test_volumes_are_measured_in_millimetres(tmp_path):
    plans = stock_plans() | {"image_reader_writer": "SimpleITKIO"}
    model = write_model(tmp_path / "results", plans=plans)
    fold = write_fold(model, 0, {"x": [0.7, None]})
    summary = fold / "validation" / "summary.json"
    summary.write_text(summary.read_text().replace(".png", ".nii.gz"))
    for folder, place in ((fold / "validation", 5), (tmp_path / "truth", 3)):
        volume = np.zeros((12, 12, 12), dtype=np.uint8)
        volume[place : place + 5, 3:8, 3:8] = 1
        image = sitk.GetImageFromArray(volume)
        image.SetSpacing((0.5, 0.5, 4.0))
        folder.mkdir(exist_ok=True)
        sitk.WriteImage(image, folder / "x.nii.gz")
    result, _ = measured(tmp_path)
    assert result.surfaces["0"].hd95 == 8.0  # two slices
    assert unit_of(result) == "mm"


def test_the_spacing_of_tiffs_is_that_of_what_was_predicted(tmp_path, capsys):
    """Beside true masks nnU-Net has no file that says it."""
    plans = stock_plans() | {"image_reader_writer": "Tiff3DIO"}
    fold = write_fold(write_model(tmp_path / "results", plans=plans), 0, {"x": [0.7, None]})
    summary = fold / "validation" / "summary.json"
    summary.write_text(summary.read_text().replace(".png", ".tif"))
    for folder, place in ((fold / "validation", 5), (tmp_path / "truth", 3)):
        volume = np.zeros((12, 12, 12), dtype=np.uint8)
        volume[place : place + 5, 3:8, 3:8] = 1
        folder.mkdir(exist_ok=True)
        tifffile.imwrite(folder / "x.tif", volume)
    (fold / "validation" / "x.json").write_text('{"spacing": [4.0, 0.5, 0.5]}')
    assert measured(tmp_path)[0].surfaces["0"].hd95 == 8.0  # two slices
    assert "spacing" not in capsys.readouterr().out


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_a_flat_image_is_measured_in_its_plane(flat, tmp_path):
    """As a slab it would be a surface everywhere."""
    plans = stock_plans() | {"image_reader_writer": "SimpleITKIO"}
    fold = write_fold(write_model(tmp_path / "results", plans=plans), 0, {"x": [0.7, None]})
    summary = fold / "validation" / "summary.json"
    summary.write_text(summary.read_text().replace(".png", ".nii.gz"))
    spacing = np.insert([1.0, 1.0], flat, 5.0)
    for folder, rows in ((fold / "validation", SHIFTED), (tmp_path / "truth", LEFT)):
        mask = np.zeros((20, 30), dtype=np.uint8)
        mask[rows] = 1
        image = sitk.GetImageFromArray(np.expand_dims(mask, flat))
        image.SetSpacing([float(side) for side in spacing[::-1]])
        folder.mkdir(exist_ok=True)
        sitk.WriteImage(image, folder / "x.nii.gz")
    surface = measured(tmp_path)[0].surfaces["0"]
    assert surface.hd95 == 3.0
    assert 0.3 < surface.dice < 0.7  # as in `test_a_shifted_square`


@pytest.mark.parametrize("what", ["truth", "mask", "broken", "shape"])
def test_masks_that_cannot_be_compared_are_noted(what, home):
    mask = next(home.rglob("validation")) / "x.png"
    if what == "broken":
        mask.write_bytes(b"no image")
    elif what == "shape":
        Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(mask)
    else:
        (mask if what == "mask" else home / "truth" / "x.png").unlink()
    result, _ = measured(home)
    assert result.surfaces == {}
    assert "no surface metrics of fold 0" in result.notes[-1]


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(surfaces.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nnunet-vit-trainer\[compare\].*--no-surface"):
        surfaces.check_library()
