"""A real trainer on batches out of the air: no data set, no workers, a few seconds in all."""

import contextlib
import json

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_vit_trainer.config.schema import ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
from nnunet_vit_trainer.plans.derive import derive_plans
from nnunet_vit_trainer.training.trainer import nnUNetTrainerNoDeepSupervision_vit

DATASET = "Dataset902_Air"
DATASET_JSON = {
    "channel_names": {"0": "grey"},
    "labels": {"background": 0, "one": 1},
    "file_ending": ".png",
    "numTraining": 1,
}
STEPS, EPOCHS = 3, 3


class Batches:
    """Endless random batches, from the random states that checkpoints hold."""

    def __next__(self):
        image = torch.from_numpy(np.random.rand(2, 1, 32, 32).astype(np.float32))
        return {"data": image, "target": (image > 0.5).float()}


def make_plans(**train):
    settings = {
        "data_identifier": "data",
        "patch_size": [32, 32],
        "batch_size": 2,
        "normalization_schemes": ["ZScoreNormalization"],
        "spacing": [1, 1],
        "batch_dice": True,
    }
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NaturalImage2DIO",
        "configurations": {"2d": settings},
    }
    model = ViTModelConfig(model_path="linear", backbone="test_vit", pretrained=False)
    recipe = {
        "num_epochs": EPOCHS,
        "num_iterations_per_epoch": STEPS,
        "num_val_iterations_per_epoch": 2,
    }
    config = ViTnnUNetConfig(model=model, train=ViTTrainConfig(**(recipe | train)))
    backbone = {"asked": "test_vit", "name": "test_vit", "options": {}}
    return derive_plans(plans, "2d", "air", config, backbone)


def make_trainer(**train):
    """Make a trainer below the folders of the next function."""
    plans = make_plans(**train) | {"continue_training": False}
    return nnUNetTrainerNoDeepSupervision_vit(plans, "2d", 0, DATASET_JSON, torch.device("cpu"))


class _Data:
    @staticmethod
    def unpack_dataset(*args, **options): ...


@contextlib.contextmanager
def in_the_air(folder):
    """nnU-Net's folders below this one; what loads data and what plots does nothing meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (folder / name).mkdir(exist_ok=True)
            patch.setenv(f"nnUNet_{name}", str(folder / name))
        data = folder / "preprocessed" / DATASET / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "case.b2nd").touch()
        (data.parent / "dataset_fingerprint.json").write_text(json.dumps({}))
        module = nnUNetTrainer.__module__
        patch.setattr(f"{module}.infer_dataset_class", lambda _: _Data)
        patch.setattr(nnUNetTrainer, "get_dataloaders", lambda _: (Batches(), Batches()))
        patch.setattr(nnUNetTrainer, "plot_network_architecture", lambda _: None)
        patch.setattr(nnUNetTrainer, "_save_debug_information", lambda _: None)
        logger = "nnunetv2.training.logging.nnunet_logger.LocalLogger.plot_progress_png"
        patch.setattr(logger, lambda *_: None)
        yield folder


def seed():
    torch.manual_seed(0)
    np.random.seed(0)
