"""What cannot be predicted is one line: a server catches `UserError` for its callers' mistakes."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK
import torch
from fake_results import stock_plans
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from trained_results import DATASET_JSON, TRAINER

from nnunet_vit_trainer.plans import preprocessing
from nnunet_vit_trainer.plans.preprocessing import preprocess_image
from nnunet_vit_trainer.prediction import Predictor
from nnunet_vit_trainer.prediction.cases import Case
from nnunet_vit_trainer.prediction.files import predict_cases
from vit_backbone import UserError

pytestmark = pytest.mark.filterwarnings("default")
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
WITHOUT_MPS = pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")


@pytest.fixture(scope="module")
def predictor(trained_folder):
    return Predictor(trained_folder, mirror=False)


@pytest.fixture(scope="module")
def of_volumes(trained_folder, tmp_path_factory):
    """The same model, as if it had been trained on NIfTI files."""
    folder = copied(trained_folder, tmp_path_factory.mktemp("volumes"))
    change(folder / "plans.json", image_reader_writer="SimpleITKIO")
    change(folder / "dataset.json", file_ending=".nii.gz")
    return Predictor(folder, mirror=False)


def test_an_image_is_no_slice_of_a_model_whose_slices_lie_along_another_axis(
    trained_folder, tmp_path
):
    """nnU-Net would take the image's rows for slices."""
    folder = copied(trained_folder, tmp_path)
    order = {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    change(folder / "plans.json", **order)
    turned, straight = (Predictor(of, mirror=False) for of in (folder, trained_folder))
    channels = len(json.loads((folder / "dataset.json").read_text())["channel_names"])
    image = np.random.default_rng(0).integers(0, 255, (channels, 20, 24)).astype(np.uint8)
    with pytest.raises(UserError, match=r"slices lie along axis 1 of its volumes.*one slice"):
        turned.predict(image)
    labels = turned.predict(image[:, :, None], (1, 4, 1))
    np.testing.assert_array_equal(labels[:, 0], straight.predict(image))


def copied(folder, to):
    return shutil.copytree(folder, to / folder.name)


def change(file, **changed):
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def failure(predictor, folder, *images, vectors=False):
    """Write images as the channels of a case, and return why it has no mask."""
    files = [folder / f"a_{number:04d}.nii.gz" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image, isVector=vectors), str(file))
    return predict_cases(predictor, [Case("a", tuple(files))], folder).failed["a"]


def preprocess(image, spacing=(999, 1, 1), scheme="RGBTo01Normalization"):
    plans = stock_plans()
    plans["configurations"]["2d"]["normalization_schemes"] = [scheme]
    manager = PlansManager(plans)
    properties = {"spacing": [*spacing]}
    return preprocess_image(
        image, properties, manager, manager.get_configuration("2d"), DATASET_JSON
    )


@pytest.mark.parametrize(
    "image",
    [
        None,
        [[[0.0] * 8] * 8],
        torch.zeros(1, 8, 8),
        np.ma.masked_array(np.zeros((1, 8, 8)), np.ones((1, 8, 8))),
        np.zeros((1, 8, 8), complex),
        np.zeros((1, 8, 8), "S1"),
        np.full((1, 8, 8), "a"),
        np.zeros((1, 8, 8), object),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(image, predictor):
    with pytest.raises(UserError, match=r"an image of .*: .* expected"):
        predictor.predict(image)


@pytest.mark.parametrize(
    "spacing", [1, "11", (None, 1), ("a", "b"), np.ones((2, 2)), np.ones((2, 1)), (0, 1), (1, 1, 1)]
)
def test_what_is_no_spacing_is_refused(spacing, predictor):
    with pytest.raises(UserError, match=r"spacing .*: 2 numbers above 0 are expected"):
        predictor.predict(np.ones((1, 8, 8)), spacing)


@pytest.mark.parametrize("spacing", [[1, 1], (np.float32(1), 1), np.ones(2), torch.ones(2)])
def test_numbers_of_any_type_are_a_spacing(spacing, predictor):
    image = np.random.default_rng(0).integers(0, 9, (1, 40, 40))
    assert predictor.predict(image, spacing).shape == (40, 40)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheme", ["RGBTo01", "CT", "No"])
def test_values_that_are_not_finite_are_called_so_however_they_are_normalised(value, scheme):
    image = np.ones((1, 1, 8, 8), np.float32)
    image[0, 0, 2, 3] = value
    with pytest.raises(UserError, match="it has NaN or infinite pixels"):
        preprocess(image, scheme=f"{scheme}Normalization")


@pytest.mark.parametrize(("value", "said"), [(60000, "greater than 255"), (-1, "smaller than 0")])
def test_values_that_are_no_colours_are_refused(value, said):
    with pytest.raises(UserError, match=rf"cannot be preprocessed .*: RGB images .* {said}"):
        preprocess(np.full((1, 1, 8, 8), value))


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((999, 1e-9, 1), "nothing of it is left"),
        ((999, 1e99, 1), r"1 x 8e\+99 x 8 pixels"),
        ((999, 1e300, 1e300), "too large"),
    ],
)
def test_a_spacing_of_no_size_or_of_any_is_refused(spacing, said):
    with pytest.raises(UserError, match=rf"\(shape \(1, 1, 8, 8\), spacing .*\): .*{said}"):
        preprocess(np.ones((1, 1, 8, 8)), spacing)


def test_an_image_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch):
    image = np.ones((1, 1, 40, 50))
    made = []
    monkeypatch.setattr(preprocessing, "physical_memory", lambda: 3.0 * 2**30)
    monkeypatch.setattr(DefaultPreprocessor, "run_case_npy", lambda *_: made.append(1))
    with pytest.raises(
        UserError, match=r"1 x 40000 x 50000 pixels, 7\.45 GiB; .* has 3 GiB\. .*units"
    ):
        preprocess(image, (999, 1000, 1000))
    assert not made


def test_zeros_around_an_image_count_for_nothing(monkeypatch):
    image = np.zeros((1, 1, 80, 80))
    image[..., 10:20, 30:40] = 7
    monkeypatch.setattr(preprocessing, "physical_memory", lambda: 4.0 * 20 * 20)
    data, _ = preprocess(image, (999, 2, 2))
    assert data.shape == (1, 1, 20, 20)
    with pytest.raises(UserError, match="1 x 30 x 30 pixels"):
        preprocess(image, (999, 3, 3))


def test_memory_that_runs_out_all_the_same_is_one_line(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(DefaultPreprocessor, "run_case_npy", fail)
    with pytest.raises(UserError, match=r"cannot be preprocessed .*: MemoryError in test_refused"):
        preprocess(np.ones((1, 1, 8, 8)))


def test_the_memory_of_this_machine_is_known_or_endless():
    assert preprocessing.physical_memory() > 2**28


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "gpu"}, "device 'gpu': Expected one of cpu"),
        ({"device": "meta"}, "device 'meta': "),
        ({"device": None}, "device 'None': "),
        pytest.param({"device": "cuda"}, "'cuda': .* use cpu", marks=WITHOUT_GPU),
        pytest.param({"device": "mps"}, "device 'mps': ", marks=WITHOUT_MPS),
        ({"batch_size": "3"}, "batch size '3': a whole number"),
        ({"batch_size": 2.5}, r"batch size 2\.5: a whole number"),
        ({"step": "a"}, "step size 'a': above 0"),
        ({"step": np.nan}, "step size nan: above 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, said, trained_folder):
    with pytest.raises(UserError, match=said):
        Predictor(trained_folder, **options)


@pytest.mark.parametrize("fold", [0, "0", np.int64(0), [0]])
def test_one_fold_needs_no_list(fold, trained_folder):
    assert len(Predictor(trained_folder, fold).ensemble.networks) == 1


def test_a_fold_by_name_is_one_fold(trained_folder):
    with pytest.raises(UserError, match=r"of fold all; there are: 0$"):
        Predictor(trained_folder, "all")


def test_a_cascade_is_refused(trained_folder, tmp_path):
    folder = copied(trained_folder, tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["previous_stage"] = "2d_coarse"
    change(folder / "plans.json", **plans)
    content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    name = "backbone.patch_embed.proj.weight"  # the masks of two classes are channels too
    content["network_weights"][name] = content["network_weights"][name].repeat(1, 3, 1, 1)
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match=r"is of a cascade: it takes the masks of '2d_coarse' too"):
        Predictor(folder)


def test_a_checkpoint_without_its_base_weights_says_what_completes_it(trained_folder, tmp_path):
    """Whichever fold it is of: the first one builds the network."""
    said = rf"checkpoint_best\.pth leaves the base weights out .*{TRAINER}.* -chk checkpoint_best"
    with pytest.raises(UserError, match=said):
        Predictor(trained_folder, checkpoint="checkpoint_best.pth")
    folder = copied(trained_folder, tmp_path)
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    for fold, other in (("fold_0", "final"), ("fold_1", "best")):
        shutil.copy(folder / fold / f"checkpoint_{other}.pth", folder / fold / "checkpoint_x.pth")
    with pytest.raises(UserError, match=r"fold_1/checkpoint_x\.pth leaves the base weights out"):
        Predictor(folder, [0, 1], "checkpoint_x.pth")


def test_pixels_that_are_vectors_are_told_so(of_volumes, tmp_path):
    said = "it has a spacing of 2 axes for 3: are its pixels vectors"
    assert said in failure(of_volumes, tmp_path, np.ones((8, 9, 3), np.float32), vectors=True)
    assert said in failure(of_volumes, tmp_path, np.ones((4, 8, 9, 3), np.float32), vectors=True)


def test_a_file_of_four_axes_is_refused_as_it_is_read(of_volumes, tmp_path):
    image = np.ones((2, 2, 8, 9), np.float32)  # NIfTI drops a single one
    assert "a file of 4 axes: its mask could not be written" in failure(of_volumes, tmp_path, image)


def test_a_reader_that_gives_no_reason_is_named(of_volumes, tmp_path):
    images = (np.ones((2, 8, 9), np.float32), np.ones((2, 8, 8), np.float32))
    said = failure(of_volumes, tmp_path, *images)
    assert said.startswith("RuntimeError in simpleitk_reader_writer.py, line ")
