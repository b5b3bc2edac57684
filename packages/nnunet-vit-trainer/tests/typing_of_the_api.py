"""Calls as a user writes them, for the type checker alone (nox -s lint): nothing here is run.

Where a comment has a rule ignored, the call is wrong and the checker must say so: it complains of
comments that are not needed.
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np

from nnunet_vit_trainer import (
    ViTnnUNetConfig,
    build_network,
    derive_plans,
    export_vit,
    import_vit,
    load_config,
    nnUNetTrainer_vit,
    run_trainig_vit,  # ty: ignore[import-not-found]
    run_training_vit,
)
from nnunet_vit_trainer.prediction import Predictor
from vit_backbone import ViTSegmentationModel, export_onnx

config = load_config("recommended_tiny")
assert_type(config, ViTnnUNetConfig)
assert_type(config.train.num_epochs, int)
assert_type(config.model.backbone_size, str | None)
config.model.backbone_size.upper()  # ty: ignore[missing-union-attribute]
assert config.model.no_such_key  # ty: ignore[missing-attribute]
plans: dict[str, Any] = derive_plans({}, "2d", "tiny", config, {"asked": "vit_tiny_patch16_224"})
derive_plans({}, "2d", "tiny", "config.yaml", {})  # ty: ignore[invalid-argument-type]

folder = run_training_vit(101, "2d", "all", "recommended", device="cpu", quiet=True)
assert_type(folder, Path)
run_training_vit(101, "2d", 0)  # ty: ignore[missing-argument]
run_training_vit(101, "2d", 0, "recommended", devise="cpu")  # ty: ignore[unknown-argument]
run_training_vit(101, "2d", 0, "recommended", num_gpus="2")  # ty: ignore[invalid-argument-type]
run_trainig_vit()

assert_type(export_vit(folder, "model.zip", form="merged", folds=["0"]), Path)
export_vit(folder, "model.zip", form="small")  # ty: ignore[invalid-argument-type]
assert_type(import_vit("model.zip", "results", head="my_head"), tuple[Path, list[str]])

predictor = Predictor(folder, folds=[0, 1], device="cpu", mirror=False)
image = np.zeros((3, 64, 64), dtype=np.float32)
assert_type(predictor.predict(image), np.ndarray)
assert_type(predictor.predict(image, (0.5, 0.5), probabilities=True), tuple[np.ndarray, np.ndarray])
predictor.predict("image.png")  # ty: ignore[invalid-argument-type]
predictor.predict(image, 0.5)  # ty: ignore[invalid-argument-type]
(network,) = predictor.ensemble.networks
export_onnx(network, "model.onnx")  # ty: ignore[invalid-argument-type] - it may be stock nnU-Net's
if isinstance(network, ViTSegmentationModel):
    export_onnx(network, "model.onnx")

assert_type(build_network(3, 2, head="segformer"), ViTSegmentationModel)
build_network(3, 2)  # ty: ignore[missing-argument]


class MyTrainer(nnUNetTrainer_vit):
    """A trainer with another rule, built on ours."""

    def on_epoch_end(self) -> None:
        """Look at the network, which is there by then."""
        super().on_epoch_end()
        assert_type(self.output_folder, str)
