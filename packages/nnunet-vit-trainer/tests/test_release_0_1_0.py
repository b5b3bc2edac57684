"""What version 0.1.0 wrote goes on working: reference_release_0_1_0.py made the two files."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_vit_trainer.demo.data import write_dataset
from nnunet_vit_trainer.launch.run import run_training_vit
from nnunet_vit_trainer.sharing.install import import_vit

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]
MADE = Path(__file__).parent / "release_0_1_0"
CONFIG = """
model:
  model_path: unetr
  backbone: test_vit
  checkpoint_path: weights.pth
  decoder: {decoder_channels: [16, 16, 8, 8, 8]}
train:
  num_epochs: 13
  num_iterations_per_epoch: 100
  num_val_iterations_per_epoch: 1
  batch_size: 2
  patch_size: [56, 40]
  initial_lr: 0.005
"""


@pytest.fixture(scope="module")
def image_and_probabilities(tmp_path_factory):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    data = write_dataset(tmp_path_factory.mktemp("raw"), num_train=10, num_test=1, size=64)
    image, properties = NaturalImage2DIO().read_images(
        [str(data / "imagesTs" / "demo_ts_000_0000.png")]
    )
    return (image, properties), np.load(MADE / "predicted.npz")["probabilities"]


def predicted(folder, image):
    """The probabilities of stock nnU-Net's predictor, which builds from the plans alone."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    _, probabilities = predictor.predict_single_npy_array(*image, None, None, True)
    return probabilities[:, 0]


@pytest.mark.parametrize("how", ["stock", "import_vit"])
def test_an_export_is_installed_and_predicts_the_same(how, tmp_path, image_and_probabilities):
    pytest.importorskip("vit_heads_unetr", reason="unetr is not installed")
    if how == "stock":
        with zipfile.ZipFile(MADE / "model.zip") as archive:
            archive.extractall(tmp_path)
        (folder,) = tmp_path.glob("*/*")
    else:
        folder, left_out = import_vit(MADE / "model.zip", tmp_path)
        assert left_out == []
    image, expected = image_and_probabilities
    found = predicted(folder, image)
    # nnU-Net adds logits up in float16: a difference of 1e-6 takes a few of a thousand of them, of
    # up to 8 here, to the next one, 0.004 away, and their probability by up to a quarter of that.
    apart = np.abs(found - expected)
    assert apart.max() < 1e-3
    assert np.mean(apart > 1e-4) < 1e-3
    assert len(np.unique(expected.argmax(0))) == 4
    sure = np.diff(np.sort(expected, axis=0)[-2:], axis=0)[0] > 1e-3
    assert np.array_equal(found.argmax(0)[sure], expected.argmax(0)[sure])


def test_a_run_is_continued(home):
    """One epoch more, of the same config, without the weight file that it began with."""
    pytest.importorskip("vit_heads_unetr", reason="unetr is not installed")
    folder, _ = import_vit(MADE / "model.zip", home / "results")
    (home / "release.yaml").write_text(CONFIG)
    fold = run_training_vit(
        "900", "2d", 0, home / "release.yaml", device="cpu", continue_training=True
    )
    assert fold.parent == folder
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["current_epoch"] == 13
    assert len(checkpoint["logging"]["train_losses"]) == 13
