"""The predictor: a loaded model, one method on arrays; the command runs the same over files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)

from nnunet_vit_trainer.plans.preprocessing import preprocess_image
from vit_backbone import UserError

from .arguments import check_array, check_options, device_of, spacing_of
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
        folds: whose mean predicts, or a single one; ``None`` is all that are there.
        checkpoint: file name in each fold's folder.
        device: where the networks run.
        step: distance of tiles as a share of their size, above 0, at most 1; nnU-Net's is 0.5.
        mirror: whether each tile is predicted under all flips that the training used.
        batch_size: tiles at once; ``None`` is 4 on a CPU, 32 elsewhere, or less where the device's
            memory is too small.
        sum_on_device: whether logits are put together on the device (faster, needs its memory).

    Raises:
        UserError: no such model or fold, one that cannot be loaded, a 3D one or a cascade's, no
            such device, or options beyond their range.
    """

    def __init__(
        self,
        folder: str | Path,
        folds: Sequence[int | str] | int | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: torch.device | str = "cpu",
        *,
        step: float = 0.5,
        mirror: bool = True,
        batch_size: int | None = None,
        sum_on_device: bool = True,
    ) -> None:
        check_options(step, batch_size)
        self.device = device_of(device)
        self.ensemble = load_ensemble(Path(folder), folds, checkpoint, self.device)
        if (stage := self.ensemble.configuration.previous_stage_name) is not None:
            raise UserError(
                f"{folder} is of a cascade: it takes the masks of {stage!r} too; use "
                "nnUNetv2_predict"
            )
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
            UserError: see `preprocess_image`.
        """
        of = self.ensemble
        data, properties = preprocess_image(
            image, properties, of.plans, of.configuration, of.dataset
        )
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
            UserError: an image or a spacing of another form or type than that, an image where the
                model's slices lie along another axis than the first, or see `preprocess`.
        """
        check_array(image)
        flat, distances = image.ndim == 3, spacing_of(spacing, image.ndim - 1)
        of = self.ensemble
        if flat and (axis := of.plans.transpose_forward[0]) != 0:
            raise UserError(
                f"this model's slices lie along axis {axis} of its volumes, counted from 0 behind "
                "the channels: give a volume with one slice along it, not an image"
            )
        if flat:
            image, distances = image[:, None], [_FOR_2D, *distances]
        canvas, properties = self.preprocess(image, {"spacing": distances})
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
