"""An image as nnU-Net gives it to a network, or one line on why it cannot be given."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from vit_backbone import UserError, quoted, reason_of

from .neighbours import KEY

# Of nnU-Net, numpy and torch, for values, spacings and sizes that they cannot take.
_RAISED = (AssertionError, ValueError, MemoryError, OverflowError, RuntimeError)
_FLOAT32 = 4
_CHANNELS_ARE = (
    "of files, each CASE_0000, CASE_0001, ... is a channel; nnUNetv2_import_images_vit -o names "
    "them"
)
_NEIGHBOURS_ARE = "slices and their neighbours, which nnUNetv2_neighbours_vit -i -o -m makes"


def preprocess_image(
    image: np.ndarray,
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset: dict[str, Any],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Crop, resample and normalise an image as nnU-Net does.

    Args:
        image: raw values, (C, slices, height, width).
        properties: as nnU-Net's reader gives them: at least ``spacing``.
        plans: of the model.
        configuration: of the model.
        dataset: the content of its ``dataset.json``.

    Returns:
        The image, and what nnU-Net needs to undo the preprocessing.

    Raises:
        UserError: see `check_image`; another number of channels than the model takes, values that
            its normalisation refuses, or a size that its spacing makes nothing of, or more than
            this machine's memory holds.
    """
    check_image(image, properties["spacing"])
    channels = determine_num_input_channels(plans, configuration, dataset)
    if len(image) != channels:
        remedy = _NEIGHBOURS_ARE if KEY in dataset else _CHANNELS_ARE
        raise UserError(f"it has {len(image)} channels; the model takes {channels} ({remedy})")
    spacing = [float(distance) for distance in properties["spacing"]]
    preprocessor = configuration.preprocessor_class(verbose=False)
    try:
        _check_size(image, spacing, plans, configuration)
        data, _, properties = preprocessor.run_case_npy(
            image, None, properties, plans, configuration, dataset
        )
    except _RAISED as error:
        raise UserError(
            f"it cannot be preprocessed (shape {image.shape}, spacing {quoted(spacing)}): "
            f"{reason_of(error, 260)}"
        ) from error
    if not np.isfinite(data).all():  # stock predicts background everywhere then
        raise UserError("it has NaN or infinite pixels once it is normalised")
    return data, properties


def check_image(image: np.ndarray, spacing: Sequence[float]) -> None:
    """Refuse an image that no model takes.

    Args:
        image: raw values, channels first.
        spacing: of its axes, without the channels'.

    Raises:
        UserError: a spacing of other axes, or one that is not above 0; NaN or infinite pixels.
    """
    if len(spacing) != image.ndim - 1:  # SimpleITK gives vectors an axis without a spacing
        raise UserError(
            f"it has a spacing of {len(spacing)} axes for {image.ndim - 1}: are its pixels "
            "vectors, as colours in a NIfTI are? write one file a channel"
        )
    if not all(np.isfinite(distance) and distance > 0 for distance in spacing):
        raise UserError(f"its spacing {quoted([*map(float, spacing)])}: numbers above 0 are needed")
    if not np.isfinite(image).all():
        raise UserError("it has NaN or infinite pixels")


def _check_size(
    image: np.ndarray,
    spacing: Sequence[float],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> None:
    """Refuse what resampling would fill the memory with; the system ends a process for that.

    Raises:
        MemoryError: naming the size.
        ValueError: it has none.
    """
    memory, wanted = physical_memory(), quoted([*configuration.spacing])
    size = _resampled(image.shape, spacing, plans, configuration)
    if 0 in size:
        raise ValueError(f"at the model's spacing {wanted} nothing of it is left")
    if math.prod(size) * _FLOAT32 > memory:  # nnU-Net cuts off zeros first; to look takes a while
        size = _resampled(crop_to_nonzero(image)[0].shape, spacing, plans, configuration)
    needed = math.prod(size) * _FLOAT32
    if needed > memory:
        raise MemoryError(
            f"at the model's spacing {wanted} it has {' x '.join(f'{n:g}' for n in size[1:])} "
            f"pixels, {needed / 2**30:.3g} GiB; this machine has {memory / 2**30:.3g} GiB. Spacing "
            "is in the units of the training's images"
        )


def _resampled(
    shape: Sequence[int],
    spacing: Sequence[float],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> list[int]:
    """Return the shape, channels first, that nnU-Net gives to an image of another one."""
    order = plans.transpose_forward
    own, wanted = [spacing[axis] for axis in order], configuration.spacing
    wanted = [*own[: len(own) - len(wanted)], *wanted]  # in 2D that of the slices stays
    sizes = compute_new_shape([shape[1 + axis] for axis in order], own, wanted)
    return [shape[0], *map(int, sizes)]


def physical_memory() -> float:
    """Return this machine's memory in bytes; infinity where the system does not tell it."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
