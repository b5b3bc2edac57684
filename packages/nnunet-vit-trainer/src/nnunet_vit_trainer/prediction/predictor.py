"""The predictor: a loaded model, one method on arrays; the command runs the same over files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from nnunet_vit_trainer.plans.neighbours import KEY
from vit_backbone import UserError, reason_of

from .batches import predicted
from .ensemble import load_ensemble
from .tiles import Canvas, mirrors_of

_FOR_2D = 999.0
"""What nnU-Net's readers of 2D images give as the distance of slices."""


class Predictor:
    """A trained model that is ready to predict, ours or stock nnU-Net's: all folds in memory.

    Several threads may predict at once.

    Args:
        folder: the model's, ``<trainer>__<plans>__<configuration>``, of a 2D configuration.
        folds: whose mean predicts; ``None`` is all that are there.
        checkpoint: file name in each fold's folder.
        device: where the networks run.
        step: distance of tiles as a share of their size, above 0, at most 1; nnU-Net's is 0.5.
        mirror: whether each tile is predicted under all flips that the training used.
        batch_size: tiles at once; ``None`` is 4 on a CPU, 32 elsewhere, or less where the device's
            memory is too small.
        sum_on_device: whether logits are put together on the device (faster, needs its memory).

    Raises:
        UserError: no such model or fold, one that cannot be loaded, a 3D one, or options beyond
            their range.
    """

    def __init__(
        self,
        folder: str | Path,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: torch.device | str = "cpu",
        *,
        step: float = 0.5,
        mirror: bool = True,
        batch_size: int | None = None,
        sum_on_device: bool = True,
    ) -> None:
        if not 0 < step <= 1:
            raise UserError(f"step size {step}: above 0 and at most 1 is expected")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch size {batch_size}: at least 1 is expected")
        self.device = torch.device(device)
        self.ensemble = load_ensemble(Path(folder), folds, checkpoint, self.device)
        self.tile_size = self.ensemble.configuration.patch_size
        if len(self.tile_size) != 2:
            raise UserError(f"{folder} is not of a 2D configuration; use nnUNetv2_predict")
        self.step = step
        self.mirrors = mirrors_of(self.ensemble.mirror_axes if mirror else None)
        self.batch_size = batch_size or (4 if self.device.type == "cpu" else 32)
        self.sums_device = self.device if sum_on_device else torch.device("cpu")

    def preprocess(
        self, image: np.ndarray, properties: dict[str, Any]
    ) -> tuple[Canvas, dict[str, Any]]:
        """Preprocess an image as nnU-Net does, and lay it out to be predicted.

        Args:
            image: raw values, (C, slices, height, width).
            properties: as nnU-Net's reader gives them: at least ``spacing``.

        Returns:
            The canvas, and what nnU-Net needs to undo the preprocessing.

        Raises:
            UserError: another number of channels than the model takes, no pixels, NaN or infinite
                ones, or a size that the model's spacing leaves nothing of.
        """
        of = self.ensemble
        channels = determine_num_input_channels(of.plans, of.configuration, of.dataset)
        if image.shape[0] != channels:
            remedy = (
                "of files, each CASE_0000, CASE_0001, ... is a channel; nnUNetv2_import_images_vit "
                "-o names them"
            )
            if KEY in of.dataset:
                remedy = "slices and their neighbours, which nnUNetv2_neighbours_vit -i -o -m makes"
            raise UserError(
                f"it has {image.shape[0]} channels; the model takes {channels} ({remedy})"
            )
        preprocessor = of.configuration.preprocessor_class(verbose=False)
        try:
            data, _, properties = preprocessor.run_case_npy(
                image, None, properties, of.plans, of.configuration, of.dataset
            )
        except ValueError as error:
            sizes = f"shape {image.shape}, spacing {properties['spacing']}"
            raise UserError(f"it cannot be preprocessed ({sizes}): {reason_of(error)}") from error
        if not np.isfinite(data).all():  # stock predicts background everywhere then
            raise UserError("it has NaN or infinite pixels")
        canvas = Canvas(
            torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)),
            self.tile_size,
            self.step,
            of.labels.num_segmentation_heads,
            len(of.networks),
            self.sums_device,
        )
        return canvas, properties

    @overload
    def predict(
        self,
        image: np.ndarray,
        spacing: Sequence[float] | None = None,
        *,
        probabilities: Literal[False] = False,
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        image: np.ndarray,
        spacing: Sequence[float] | None = None,
        *,
        probabilities: Literal[True],
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def predict(
        self,
        image: np.ndarray,
        spacing: Sequence[float] | None = None,
        *,
        probabilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Segment one image, as nnU-Net does that reads it from a file.

        Args:
            image: raw values, (C, height, width), or (C, slices, height, width) for a volume.
            spacing: distance of pixels along each axis, without the channels'; ``None`` is 1
                everywhere. In the order of the axes: SimpleITK's is the other way round.
            probabilities: whether to return them too.

        Returns:
            The labels, of the image's shape without channels; with ``probabilities`` also
            (K, ...), float32.

        Raises:
            UserError: an image or a spacing of another form than that, or see `preprocess`.
        """
        flat = image.ndim == 3
        if image.ndim not in (3, 4):
            raise UserError(
                f"an image of shape {image.shape}: (channels, height, width) or (channels, slices, "
                "height, width) is expected"
            )
        axes = image.ndim - 1
        spacing = [1.0] * axes if spacing is None else [float(distance) for distance in spacing]
        if len(spacing) != axes or not all(np.isfinite(d) and d > 0 for d in spacing):
            raise UserError(f"spacing {spacing}: {axes} numbers above 0 are expected")
        if flat:
            image, spacing = image[:, None], [_FOR_2D, *spacing]
        of = self.ensemble
        canvas, properties = self.preprocess(image, {"spacing": spacing})
        (canvas,) = predicted([canvas], of.networks, self.mirrors, self.batch_size, self.device)
        found = convert_predicted_logits_to_segmentation_with_correct_shape(
            canvas.result().numpy(),
            of.plans,
            of.configuration,
            of.labels,
            properties,
            return_probabilities=probabilities,
            num_threads_torch=torch.get_num_threads(),
        )
        if not probabilities:
            return found[0] if flat else found
        labels, of_classes = found
        return (labels[0], of_classes[:, 0]) if flat else (labels, of_classes)
