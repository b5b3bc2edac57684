"""Images as a network takes them, and as they are shown beside its features."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunet_vit_trainer.plans.preprocessing import check_image, preprocess_image
from vit_backbone import UserError, reason_of

from .classes import classes_of, ignored_value
from .sources import Model, shown_channels
from .tones import are_colours, to_rgb

UNIT_RANGE, Z_SCORE = "RGBTo01Normalization", "ZScoreNormalization"
_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Input:
    """An image.

    Attributes:
        name: to show.
        image: (height, width, 3), 0 to 255.
        aspect: a pixel's height by its width.
        normalised: (C, H, W), of the same area.
        schemes: nnU-Net's normalisation of each channel.
    """

    name: str
    image: np.ndarray
    aspect: float
    normalised: torch.Tensor
    schemes: list[str]


def preprocessed(
    name: str,
    files: Sequence[Path],
    plans: dict[str, Any],
    dataset: dict[str, Any],
    at: int | None = None,
) -> Input:
    """Read an image as a trained model does: cropped, resampled and normalised by nnU-Net.

    Args:
        name: of the case.
        files: one a channel, or one of all channels.
        plans: of the model.
        dataset: the content of its ``dataset.json``.
        at: which slice of a volume, from 1; ``None`` is the middle one of those that are not empty.

    Raises:
        UserError: it cannot be read or preprocessed (`preprocess_image`), or has no such slice, or
            an empty one.
    """
    model = Model(plans, dataset, classes_of(dataset), ignored_value(dataset))
    manager = model.manager
    (configuration,) = plans["configurations"]
    settings = manager.get_configuration(configuration)
    raw, properties = _read(manager.image_reader_writer_class(), name, files)
    with _named(name):
        data, properties = preprocess_image(raw, properties, manager, settings, dataset)
    axes = plans["transpose_forward"]
    spacing = [properties["spacing"][axis] for axis in axes]
    raw = raw.transpose(0, *(axis + 1 for axis in axes))
    (first, last), *sides = properties["bbox_used_for_cropping"]
    at = (first + last) // 2 if at is None else _slice_of(raw, at, name)
    if not first <= at < last:
        raise UserError(
            f"{name}: slice {at + 1} is empty, and the model does not see it; "
            f"take one of {first + 1} to {last}"
        )
    rows, columns = (slice(*ends) for ends in sides)
    cropped = raw[:, at, rows, columns]
    image, said = shown_channels(cropped, model, are_colours(model.channels))
    return Input(
        _with(name, len(raw[0]), at, said),
        image,
        spacing[1] / spacing[2],
        torch.from_numpy(np.ascontiguousarray(data[:, at - first], dtype=np.float32)),
        model.settings["normalization_schemes"],
    )


def normalised(file: Path, at: int | None = None) -> Input:
    """Read an image file without a data set: photographs on [0, 1], all else z-scored.

    Args:
        file: of any form that nnU-Net reads, or a JPEG; transparency is left out.
        at: which slice of a volume; ``None`` is the middle one.

    Raises:
        UserError: it cannot be read, is none that a model takes (`check_image`), or has no such
            slice.
    """
    name = file.name.lower()
    readers = [
        reader
        for reader in LIST_OF_IO_CLASSES
        if any(name.endswith(ending) for ending in reader.supported_file_endings)
    ]
    if name.endswith(_JPEG):
        readers = [NaturalImage2DIO]
    if not readers:
        known = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings})
        raise UserError(f"{file}: images end in {', '.join([*known, *_JPEG])}")
    raw, properties = _read(readers[0](), file.name, [file])
    with _named(file.name):
        check_image(raw, properties["spacing"])
    at = _slice_of(raw, at, file.name)
    spacing, piece, said = properties["spacing"], raw[:, at], ""
    photograph = readers[0] is NaturalImage2DIO and len(piece) in (3, 4)
    if photograph:
        said = "without transparency" if len(piece) == 4 else ""
        piece = piece[:3]
        full = 255.0 if piece.max() <= 255 else 65535.0
        data, scheme, image = piece / full, UNIT_RANGE, to_rgb(piece)
    else:
        mean, std = (of(piece, axis=(1, 2), keepdims=True) for of in (np.mean, np.std))
        data, scheme, image = (piece - mean) / np.maximum(std, 1e-8), Z_SCORE, to_rgb(piece[:1])
        said = f"channel 1 of {len(piece)}" if len(piece) > 1 else ""
    return Input(
        _with(file.name, len(raw[0]), at, said),
        image,
        spacing[1] / spacing[2],
        torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)),
        [scheme] * len(piece),
    )


def _read(reader: Any, name: str, files: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        return reader.read_images([str(file) for file in files])
    except Exception as error:  # whatever a reader of images raises
        raise UserError(f"{name} cannot be read: {reason_of(error)}") from error


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of what image a mistake is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _slice_of(image: np.ndarray, at: int | None, name: str) -> int:
    """Return which slice of (C, slices, height, width) is meant, counted from 0."""
    slices = image.shape[1]
    if at is None:
        return slices // 2
    if not 1 <= at <= slices:
        raise UserError(f"{name} has no slice {at}; it has 1 to {slices}")
    return at - 1


def _with(name: str, slices: int, at: int, said: str) -> str:
    return ", ".join(filter(None, (name, f"slice {at + 1} of {slices}" * (slices > 1), said)))
