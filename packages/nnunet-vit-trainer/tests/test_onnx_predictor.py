"""The predictor of docs/serving.md does all that nnU-Net does around a network, on any plans.

The network is a torch one on both sides here, so that masks are equal; test_onnx.py exports one.
"""

import copy
import json
from types import SimpleNamespace

import numpy as np
import predictor_of_serving
import pytest
import torch
from fake_results import stock_plans
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from trained_results import DATASET_JSON

from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.sharing.onnx.metadata import METADATA_KEY, metadata_of
from vit_backbone import UserError

pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
pytestmark = pytest.mark.filterwarnings("default")
STATISTICS = {"mean": 90.0, "std": 40.0, "percentile_00_5": 20.0, "percentile_99_5": 200.0}
ALL_SCHEMES = ["ZScore", "CT", "RescaleTo01", "RGBTo01", "No"]
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_class_order": [1, 2],
}


@pytest.fixture(scope="module")
def predictor():
    return predictor_of_serving.load()


class Session:
    """What the predictor asks of onnxruntime's."""

    def __init__(self, network, metadata):
        self.network, self.metadata = network, json.dumps(metadata)

    def get_modelmeta(self):
        return SimpleNamespace(custom_metadata_map={METADATA_KEY: self.metadata})

    def get_outputs(self):
        return [SimpleNamespace(shape=["batch", self.network.out_channels, 32, 32])]

    def run(self, names, feeds):
        with torch.inference_mode():
            return [self.network(torch.from_numpy(feeds["image"])).numpy()]


def plans_of(schemes=("ZScore",), masked=False, tile=(32, 32), order=(0, 1, 2)):
    plans = stock_plans() | {PLANS_KEY: {}}
    plans["transpose_forward"] = list(order)
    plans["transpose_backward"] = [int(axis) for axis in np.argsort(order)]
    channels = {str(number): STATISTICS for number in range(len(schemes))}
    plans["foreground_intensity_properties_per_channel"] = channels
    plans["configurations"]["2d"] |= {
        "patch_size": list(tile),
        "normalization_schemes": [f"{scheme}Normalization" for scheme in schemes],
        "use_mask_for_norm": [masked and scheme == "ZScore" for scheme in schemes],
    }
    return plans


def session_and_stock(tmp_path, plans, mirrored=(0, 1), folds=1, **dataset):
    """The predictor's sessions and nnU-Net's own predictor, of the same networks."""
    schemes = plans["configurations"]["2d"]["normalization_schemes"]
    dataset = (
        DATASET_JSON | {"channel_names": {str(i): str(i) for i in range(len(schemes))}} | dataset
    )
    manager = PlansManager(copy.deepcopy(plans))
    outputs = manager.get_label_manager(dataset).num_segmentation_heads
    torch.manual_seed(0)
    networks = [nn.Conv2d(len(schemes), outputs, 5, padding=2) for _ in range(folds)]
    checkpoint = tmp_path / "fold_0" / "checkpoint_final.pth"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()
    content = {"inference_allowed_mirroring_axes": mirrored}
    metadata = metadata_of(plans, dataset, content, checkpoint, "float32")
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.manual_initialization(
        copy.deepcopy(networks[0]),
        manager,
        manager.get_configuration("2d"),
        [network.state_dict() for network in networks],
        dataset,
        "nnUNetTrainer",
        mirrored,
    )
    return [Session(network, metadata) for network in networks], stock


def image_of(shape, border=0):
    """Blobs rather than noise, with zeros all around; a hole of zeros too."""
    random = np.random.default_rng(1)
    coarse = random.integers(1, 255, (shape[0], shape[1], 9, 9))
    rows, columns = (np.arange(size) * 9 // size for size in shape[2:])
    image = coarse[:, :, rows][..., columns] + random.integers(0, 9, shape)
    image = np.clip(image, 1, 255).astype(np.uint8)
    if border:
        image[..., :border, :] = image[..., -2 * border :, :] = 0
        image[..., border // 2 : border] = image[..., -1:] = 0
        image[:, :, 2 * border : 2 * border + 3, 9:14] = 0
    return image


@pytest.mark.parametrize(
    ("plans", "options", "shape", "border"),
    [
        ({}, {}, (1, 1, 70, 45), 0),
        ({}, {}, (1, 1, 20, 17), 0),
        ({}, {}, (1, 1, 33, 64), 0),
        ({"tile": (33, 28)}, {}, (1, 1, 81, 99), 5),
        ({"masked": True}, {}, (1, 1, 70, 45), 6),
        ({"schemes": ALL_SCHEMES}, {}, (5, 1, 60, 50), 0),
        ({"schemes": ["ZScore"] * 3, "masked": True}, {}, (3, 1, 60, 50), 4),
        ({}, REGIONS, (1, 1, 70, 45), 4),
        ({}, {"mirrored": None}, (1, 1, 70, 45), 0),
        ({}, {"mirrored": (1,), "folds": 3}, (1, 1, 70, 45), 0),
        ({}, {"labels": {"background": 0, "a": 1, "ignore": 2}}, (1, 1, 40, 40), 0),
        ({"schemes": ["CT"]}, {}, (1, 4, 40, 45), 3),
        ({"order": (1, 2, 0)}, {}, (1, 40, 3, 45), 0),
        ({"order": (2, 0, 1)}, {}, (1, 40, 45, 3), 0),
    ],
)
def test_masks_are_nnunets(plans, options, shape, border, predictor, tmp_path):
    sessions, stock = session_and_stock(tmp_path, plans_of(**plans), **options)
    image, spacing = image_of(shape, border), (999.0, 1.0, 1.0)
    if shape[1] > 1:
        spacing = (1.0, 1.0, 1.0)
    expected = stock.predict_single_npy_array(image.astype(np.float32), {"spacing": spacing})
    got = predictor.predict(sessions, image, spacing)
    assert got.shape == expected.shape == shape[1:]
    assert got.dtype == expected.dtype
    assert len(np.unique(expected)) > 1
    assert np.mean(got == expected) >= 0.999


def test_an_image_of_nothing_is_predicted_as_nnunet_does(predictor, tmp_path):
    sessions, stock = session_and_stock(tmp_path, plans_of(masked=True))
    image = np.zeros((1, 1, 40, 40), np.float32)
    expected = stock.predict_single_npy_array(image, {"spacing": (999, 1, 1)})
    assert (predictor.predict(sessions, image, (999, 1, 1)) == expected).all()


def test_what_it_does_not_cover_is_refused(predictor, tmp_path):
    sessions, _ = session_and_stock(tmp_path, plans_of())
    for shape, spacing in (((2, 1, 40, 40), (999, 1, 1)), ((1, 1, 40, 40), (999, 1, 2))):
        with pytest.raises(ValueError, match="other channels or spacing"):
            predictor.predict(sessions, np.ones(shape), spacing)
    masked, _ = session_and_stock(tmp_path, plans_of(masked=True))
    with pytest.raises(ValueError, match="masked slices"):
        predictor.predict(masked, np.ones((1, 2, 40, 40)), (1, 1, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 256, 65535])
def test_values_that_nnunet_refuses_are_refused(value, predictor, tmp_path):
    """Infinity would become the largest value of a CT; the rest a mask of anything."""
    image = image_of((2, 1, 40, 40)).astype(np.float32)
    colours, _ = session_and_stock(tmp_path, plans_of(schemes=["CT", "RGBTo01"]))
    assert predictor.predict(colours, image, (999, 1, 1)).shape == (1, 40, 40)
    image[1, 0, 5, 5] = value
    with pytest.raises(ValueError, match="NaN, RGB beyond 0 to 255"):
        predictor.predict(colours, image, (999, 1, 1))
    if np.isfinite(value):  # in the CT anything is a value
        predictor.predict(colours, image[::-1], (999, 1, 1))
    else:
        with pytest.raises(ValueError, match="NaN"):
            predictor.predict(colours, image[::-1], (999, 1, 1))


def test_many_labels_are_written_as_nnunet_writes_them(tmp_path):
    labels = {"background": 0, **{str(number): number for number in range(1, 300)}}
    (session,), _ = session_and_stock(tmp_path, plans_of(), labels=labels)
    assert json.loads(session.metadata)["mask_type"] == "uint16"


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"normalization_schemes": ["MyNormalization"]}, "is normalized by 'MyNormalization'"),
        ({"preprocessor_name": "My"}, "preprocess by 'My', not by DefaultPreprocessor"),
    ],
)
def test_a_preprocessing_of_ones_own_is_refused(changed, match, tmp_path):
    plans = plans_of()
    plans["configurations"]["2d"] |= changed
    with pytest.raises(UserError, match=match):
        metadata_of(plans, DATASET_JSON, {}, tmp_path / "checkpoint_final.pth", "float32")


def test_channels_that_are_neighbouring_slices_are_said_to_be(tmp_path):
    checkpoint = tmp_path / "fold_0" / "checkpoint_final.pth"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    said = {"count": 1, "axis": 0}
    for more, expected in (({}, None), ({"neighbours": said}, said)):
        of = metadata_of(plans_of(), DATASET_JSON | more, {}, checkpoint, "float32")
        assert of["neighbours"] == expected


def test_the_document_keeps_its_word():
    assert predictor_of_serving.source().count("\n") <= 60
    assert predictor_of_serving.foreign_imports() == {"numpy", "onnxruntime", "PIL"}
