"""The overlay sheet: which cases and slices are on it, of whatever data, and what it looks like."""

import io
import json
import math

import matplotlib
import numpy as np
import pytest
import SimpleITK
from a_validation import copy_of, flat_case, pixels_of, size_of, write, write_validation
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_vit_trainer.pictures.canvas import Page
from nnunet_vit_trainer.pictures.classes import classes_of, colour_of, errors_of
from nnunet_vit_trainer.pictures.overlay import draw_sheet
from nnunet_vit_trainer.pictures.scores import Score, chosen, worst_first
from nnunet_vit_trainer.pictures.sources import NO_IMAGE, raw_files, read_slice
from nnunet_vit_trainer.pictures.tones import are_colours, to_rgb
from nnunet_vit_trainer.pictures.validation import draw_validation, read_validation
from vit_backbone import UserError, shorten

ORANGE = (0xE6, 0x9F, 0x00)


@pytest.fixture
def model(trained_folder, tmp_path):
    return copy_of(trained_folder, tmp_path)


@pytest.fixture
def raw(model, monkeypatch, tmp_path):
    """The raw data set, where nnU-Net looks for it, once it is written."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "Dataset900_ViTDemo").symlink_to(tmp_path / "data")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)


def rng():
    return np.random.default_rng(0)


def scores(*means):
    return [Score(f"case_{i}", "", (mean, math.nan)) for i, mean in enumerate(means)]


def shown(fold, number=0):
    """Return the slice that is drawn of the best case (0), the median or the worst one."""
    found = read_validation(fold)
    _, score = chosen(found.scores)[number]
    ending = found.model.dataset["file_ending"]
    prediction = fold / "validation" / f"{score.case}{ending}"
    return read_slice(found.model, score.case, score.truth, prediction)


def written_on(fold):
    """Return the lines that are written on a fold's sheet."""
    lines, write = [], Page.text

    def text(page, x, y, line, *arguments, **options):
        lines.append(line)
        write(page, x, y, line, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "text", text)
        draw_validation(fold)
    return lines


def holds(file, colour, least=20):
    return (np.abs(pixels_of(file).astype(int) - colour).max(axis=2) < 3).sum() >= least


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((0.5, 0.9, 0.1), {"best": 0.9, "median": 0.5, "worst": 0.1}),
        ((0.5, 0.9, 0.1, 0.2), {"best": 0.9, "median": 0.2, "worst": 0.1}),
        ((0.5, 0.9, math.nan), {"best": 0.9, "worst": 0.5}),
        ((0.5, math.nan), {"only case": 0.5}),
    ],
)
def test_the_best_the_median_and_the_worst_case_are_chosen(means, expected):
    assert {place: score.mean for place, score in chosen(scores(*means))} == expected


def test_where_nothing_is_there_the_first_cases_are_chosen():
    assert [place for place, _ in chosen(scores(*[math.nan] * 5))] == ["nothing there"] * 3


def test_cases_without_a_dice_come_last():
    ranked = worst_first(scores(math.nan, 0.9, 0.1))
    assert [score.case for score in ranked] == ["case_2", "case_1", "case_0"]


def test_the_colours_of_21_classes_differ():
    colours = np.array([colour_of(i) for i in range(21)])
    apart = np.abs(colours[:, None] - colours).sum(2) + 9 * np.eye(21)
    assert apart.min() > 0.15
    assert colour_of(21) == colour_of(0)


def test_labels_and_regions_are_named_as_in_nnunets_summary():
    plain = classes_of({"labels": {"b": 2, "background": 0, "a": [1], "ignore": 3}})
    assert [(c.name, c.key, c.values) for c in plain] == [("a", "1", (1,)), ("b", "2", (2,))]
    regions = classes_of({"labels": {"background": 0, "whole": [1, 2], "core": 2, "x": [1]}})
    assert [c.key for c in regions] == ["(1, 2)", "2", "(1,)"]


def test_errors_are_those_of_the_regions_and_not_of_what_is_ignored():
    classes = classes_of({"labels": {"background": 0, "whole": [1, 2], "core": 3}})
    truth, prediction = np.array([1, 0, 3, 4]), np.array([2, 1, 3, 1])
    assert errors_of(truth, prediction, classes, None).tolist() == [False, True, False, True]
    assert errors_of(truth, prediction, classes, 4).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("names", "colours"),
    [
        (["R", "G", "B"], True),
        (["red", "green", "blue", "alpha"], True),
        (["rgb_to_0_1"] * 3, True),
        (["T1", "T2", "FLAIR"], False),
        (["B", "G", "R"], False),
        (["R"], False),
    ],
)
def test_colours_are_known_by_their_names(names, colours):
    assert are_colours(names) is colours


def test_values_become_what_a_screen_shows():
    photograph = np.full((3, 2, 2), 200.0)
    assert (to_rgb(photograph) == 200).all()
    ct = np.linspace(-1000, 3000, 100).reshape(1, 10, 10)
    window = to_rgb(ct, (0.0, 100.0))
    assert {window.min(), window.max()} == {0, 255}
    assert (window[ct[0] <= 0] == 0).all()
    assert (window[ct[0] >= 100] == 255).all()
    stretched = to_rgb(ct)[..., 0]
    assert (stretched[0, 0], stretched[-1, -1]) == (0, 255)
    assert (np.diff(stretched.ravel().astype(int)) >= 0).all()
    assert abs(int(stretched[5, 0]) - 128) < 3
    for odd, shown in (([[0, 0]], [0, 0]), ([[np.nan, np.nan]], [0, 0]), ([[np.inf, 1]], [255, 0])):
        assert to_rgb(np.array([odd]))[0, :, 0].tolist() == shown


def test_a_validation_is_drawn_a_thousand_pixels_wide(model, raw):
    cases = {f"case_{i}": flat_case(rng(), shift=3 * i) for i in range(5)}
    fold = write_validation(model, cases)
    file = draw_validation(fold)
    assert file == fold / "overlay.png"
    width, height = size_of(file)
    assert width == 1000
    assert 3 * 248 < height < 1000
    assert holds(file, ORANGE)
    assert [f.name for f in fold.iterdir() if f.suffix == ".tmp"] == []


def test_other_styles_of_matplotlib_do_not_change_it(model, raw):
    """nnU-Net sets seaborn's, with letters two and a half times as large, in the same process."""
    fold = write_validation(model, {"case": flat_case(rng(), shift=2)})
    plain = draw_validation(fold).read_bytes()
    with matplotlib.rc_context({"axes.grid": True, "font.size": 30, "image.cmap": "hot"}):
        assert draw_validation(fold).read_bytes() == plain


def test_of_colours_all_are_shown_and_of_five_channels_the_first_is_named(model, raw):
    fold = write_validation(model, {"case": flat_case(rng(), channels=3)}, channels=["R", "G", "B"])
    image = shown(fold).image
    assert (image[..., 0] != image[..., 1]).any()
    names = ["T1", "T2", "PD", "DWI", "ADC"]
    fold = write_validation(model, {"other": flat_case(rng(), channels=5)}, channels=names)
    assert shown(fold).said == "channel T1 of 5"


def volume(shape=(6, 30, 40)):
    """Make a volume whose prediction is wrong in slice 4 most, by a class that is small there."""
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[1:5, 5:15, 5:15] = prediction[1:5, 5:15, 5:15] = 1
    prediction[3, 5:9, 5:9] = 2
    prediction[1, 5, 5] = 2
    return rng().normal(40, 300, (1, *shape)).astype(np.float32), truth, prediction


NIFTI = {"plans": {"image_reader_writer": "SimpleITKIO"}, "file_ending": ".nii.gz"}


def test_of_a_volume_the_slice_with_most_errors_is_shown(model, raw):
    fold = write_validation(model, {"case": volume()}, channels=["CT"], **NIFTI)
    found = shown(fold)
    assert found.said == "slice 4 of 6"
    assert found.truth.shape == (30, 40)
    assert found.aspect == 2.0
    assert size_of(draw_validation(fold))[0] == 1000


def test_a_volume_is_sliced_as_the_network_slices_it(model, raw):
    plans = NIFTI["plans"] | {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    fold = write_validation(model, {"case": volume()}, **(NIFTI | {"plans": plans}))
    found = shown(fold)
    assert found.said == "slice 6 of 40"
    assert found.truth.shape == found.image.shape[:2] == (6, 30)


def test_of_a_volume_without_errors_the_fullest_slice_is_shown(model, raw):
    image, truth, _ = volume()
    truth[2, :, :] = 1
    fold = write_validation(model, {"case": (image, truth, truth)}, **NIFTI)
    assert shown(fold).said == "slice 3 of 6"


def test_regions_and_what_is_not_annotated_are_drawn(model, raw):
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    image, truth, prediction = flat_case(rng(), shift=4)
    truth[:, :10] = 3
    fold = write_validation(
        model, {"case": (image, truth, prediction)}, labels=labels, regions_class_order=[1, 2]
    )
    found = read_validation(fold)
    assert all(0 < dice < 1 for dice in found.scores[0].dice)
    assert holds(draw_validation(fold), (0x9A, 0x9A, 0x9A))


@pytest.mark.parametrize("shape", [(20, 300), (300, 20), (1, 1), (900, 1700)])
def test_any_shape_is_drawn(model, raw, shape):
    fold = write_validation(model, {"case": flat_case(rng(), shape, shift=1)})
    width, height = size_of(draw_validation(fold))
    assert width == 1000
    assert height < 600


@pytest.mark.parametrize("shape", [(40, 1), (1, 40), (2000, 2)])
def test_masks_as_thin_as_a_line_are_drawn(model, raw, shape):
    image, truth, found = flat_case(rng(), shape)
    truth[: shape[0] // 2 + 1, : shape[1] // 2 + 1] = 1
    assert not (truth == 1).all()
    assert draw_validation(write_validation(model, {"case": (image, truth, found)})).is_file()


def test_a_single_pixel_of_a_large_image_is_seen(model, raw):
    image, truth, _ = flat_case(rng(), (2000, 2000))
    truth[:] = 0
    prediction = truth.copy()
    truth[1003, 997] = 1
    fold = write_validation(model, {"case": (image, truth, prediction)})
    assert holds(draw_validation(fold), ORANGE, least=4)


@pytest.mark.parametrize("name", ["a$b_c$d", "fall 7", "été", "病例", "x" * 150, "%s{}"])
def test_any_name_of_a_case_is_written_as_it_is(model, raw, name):
    fold = write_validation(model, {name: flat_case(rng())})
    (line,) = [line for line in written_on(fold) if line.startswith("only case:  ")]
    assert line.removeprefix("only case:  ") == shorten(name, 70)


def test_masks_of_nothing_and_of_one_class_alone_are_drawn(model, raw):
    image, truth, _ = flat_case(rng())
    empty, full = np.zeros_like(truth), np.full_like(truth, 2)
    cases = {
        "found nothing": (image, truth, empty),
        "nothing there": (image, empty, empty),
        "everything": (image, full, full),
    }
    fold = write_validation(model, cases)
    assert [score.case for _, score in chosen(read_validation(fold).scores)] == [
        "everything",
        "found nothing",
    ]
    assert draw_validation(fold).is_file()


def test_of_many_classes_the_lowest_are_listed(model, raw):
    labels = {"background": 0} | {f"class number {i}": i for i in range(1, 41)}
    image, truth, _ = flat_case(rng())
    truth[:] = np.arange(64) % 41
    missed = np.arange(64)[:, None] < truth  # of each class as many rows as its number
    found = np.where(missed, 0, truth).astype(truth.dtype)
    fold = write_validation(model, {"case": (image, truth, found)}, labels=labels)
    written = written_on(fold)
    assert "the lowest 6 of 40" in written
    dice = sorted(read_validation(fold).scores[0].dice)
    assert dice[0] < dice[6] < dice[-1]
    assert [line for line in written if line in {f"{d:.3f}" for d in dice}] == [
        f"{d:.3f}" for d in dice[:6]
    ]


def test_without_the_image_the_masks_are_drawn(model, raw, tmp_path):
    fold = write_validation(model, {"case": flat_case(rng())})
    (tmp_path / "data" / "imagesTr" / "case_0000.png").unlink()
    assert shown(fold).said == NO_IMAGE


def as_ct(fold):
    """Make the channel CT, from 0 to 100, in the plans."""
    file = fold.parent / "plans.json"
    plans = json.loads(file.read_text())
    (settings,) = plans["configurations"].values()
    settings["normalization_schemes"] = ["CTNormalization"]
    of = {"mean": 40.0, "std": 20.0, "percentile_00_5": 0.0, "percentile_99_5": 100.0}
    plans["foreground_intensity_properties_per_channel"] = {"0": of}
    file.write_text(json.dumps(plans))
    return plans


def preprocess(fold, case, home, monkeypatch):
    """Preprocess a case as nnU-Net does, and leave nothing but that of its image."""
    plans = json.loads((fold.parent / "plans.json").read_text())
    dataset = json.loads((fold.parent / "dataset.json").read_text())
    (name, settings) = next(iter(plans["configurations"].items()))
    folder = home / "preprocessed" / plans["dataset_name"] / settings["data_identifier"]
    folder.mkdir(parents=True)
    manager = PlansManager(plans)
    configuration = manager.get_configuration(name)
    images, labels = home / "data" / "imagesTr", home / "data" / "labelsTr"
    files = sorted(images.glob(f"{case}_*"))
    configuration.preprocessor_class(verbose=False).run_case_save(
        str(folder / case),
        [str(file) for file in files],
        str(labels / f"{case}{dataset['file_ending']}"),
        manager,
        configuration,
        dataset,
    )
    for file in files:
        file.unlink()
    monkeypatch.setenv("nnUNet_preprocessed", str(home / "preprocessed"))
    return folder


def test_ct_looks_alike_preprocessed_and_raw(model, raw, tmp_path, monkeypatch):
    image, truth, prediction = volume()
    image[:] = np.linspace(-50, 150, 40)  # alike in all rows, which nnU-Net resamples
    image[:, 0] = 0  # which it crops
    fold = write_validation(model, {"case": (image, truth, prediction)}, channels=["CT"], **NIFTI)
    as_ct(fold)
    whole = shown(fold)
    assert len(np.unique(whole.image)) > 15
    folder = preprocess(fold, "case", tmp_path, monkeypatch)
    found = shown(fold)
    assert found.said == "slice 4 of 6, image as preprocessed"
    assert np.abs(found.image.astype(int) - whole.image).max() <= 1
    for file in folder.glob("case*.b2nd"):
        file.write_bytes(b"no data")
    with pytest.raises(UserError, match="preprocessed case case cannot be read"):
        shown(fold)


def test_of_neighbours_the_slice_itself_is_shown(model, raw, tmp_path, monkeypatch):
    """Channel 0 is the slice before."""
    image, truth, prediction = volume()
    image[:] = np.linspace(-50, 150, 40)
    stacked = np.concatenate([image - 500, image, image + 500])
    fold = write_validation(
        model, {"case": (stacked, truth, prediction)}, channels=["CT"] * 3, **NIFTI
    )
    file = fold.parent / "dataset.json"
    dataset = json.loads(file.read_text()) | {"neighbours": {"count": 1, "axis": 0}}
    file.write_text(json.dumps(dataset))
    found = shown(fold)
    assert len(np.unique(found.image)) == 40  # of a window of its own
    as_ct(fold)
    plans_file = fold.parent / "plans.json"
    plans = json.loads(plans_file.read_text())
    windows = plans["foreground_intensity_properties_per_channel"]
    plans["foreground_intensity_properties_per_channel"] = {str(c): windows["0"] for c in range(3)}
    (settings,) = plans["configurations"].values()
    settings["normalization_schemes"] = ["CTNormalization"] * 3
    settings["use_mask_for_norm"] = [False] * 3
    plans_file.write_text(json.dumps(plans))
    whole = shown(fold)
    assert len(np.unique(whole.image)) > 15  # of CT's window, in which the neighbours are flat
    preprocess(fold, "case", tmp_path, monkeypatch)
    assert np.abs(shown(fold).image.astype(int) - whole.image).max() <= 1


def test_three_sequences_in_one_file_are_no_colours(model, raw, tmp_path):
    names = ["T1", "T2", "FLAIR"]
    image, truth, prediction = volume()
    fold = write_validation(model, {"case": (image, truth, prediction)}, channels=names, **NIFTI)
    file = tmp_path / "data" / "imagesTr" / "case_0000.nii.gz"
    one = SimpleITK.ReadImage(str(file))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([one, one * 2, one * 3]), str(file))
    found = shown(fold)
    assert found.said == "slice 4 of 6, channel T1 of 3"
    assert (found.image[..., 0] == found.image[..., 1]).all()


def test_an_image_with_fewer_slices_than_its_mask_is_one_line(model, raw, tmp_path):
    fold = write_validation(model, {"case": volume()}, **NIFTI)
    write(tmp_path / "data" / "imagesTr" / "case_0000.nii.gz", np.zeros((2, 30, 40), np.float32))
    with pytest.raises(UserError, match="the image of case case and its mask differ in shape"):
        shown(fold)


def test_the_truth_is_found_where_nnunet_has_it_though_results_moved(model, raw, tmp_path):
    fold = write_validation(model, {"case": flat_case(rng())})
    summary = fold / "validation" / "summary.json"
    summary.write_text(summary.read_text().replace(str(tmp_path / "data"), "/gone"))
    assert shown(fold).truth.any()
    (tmp_path / "data" / "labelsTr" / "case.png").unlink()
    with pytest.raises(UserError, match=r"case\.png lies neither"):
        shown(fold)


def test_images_that_dataset_json_lists_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    file = tmp_path / "Dataset001_A" / "elsewhere" / "x.png"
    file.parent.mkdir(parents=True)
    file.touch()
    dataset = {"dataset": {"a": {"images": ["elsewhere/x.png"]}}, "file_ending": ".png"}
    assert raw_files("Dataset001_A", dataset, "a") == [file]


def test_a_case_is_not_taken_for_one_whose_name_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / "Dataset001_A" / "imagesTr"
    folder.mkdir(parents=True)
    for name in ("a_0000.png", "a_1_0000.png", "[a]_0000.png"):
        (folder / name).touch()
    for case in ("a", "[a]"):
        found = raw_files("Dataset001_A", {"file_ending": ".png"}, case)
        assert [file.name for file in found] == [f"{case}_0000.png"]


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"foreground_mean": {}}', "holds no case"), ('{"metric_per_case": 3}', "no summary")],
)
def test_a_summary_that_is_none_is_one_line(model, raw, content, said):
    fold = write_validation(model, {"case": flat_case(rng())})
    (fold / "validation" / "summary.json").write_text(content)
    with pytest.raises(UserError, match=said):
        draw_validation(fold)


def test_a_broken_mask_is_one_line(model, raw):
    fold = write_validation(model, {"case": flat_case(rng())})
    (fold / "validation" / "case.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read"):
        draw_validation(fold)


def test_of_fold_all_it_is_said_that_the_cases_were_trained_on(model, raw):
    fold = write_validation(model, {"case": flat_case(rng())})
    assert read_validation(fold).cases == "1 case"
    assert read_validation(fold.rename(fold.with_name("fold_all"))).cases.endswith("trained on")


def test_a_sheet_needs_no_row():
    assert size_of(io.BytesIO(draw_sheet([], [], None, "nothing")))[0] == 1000
