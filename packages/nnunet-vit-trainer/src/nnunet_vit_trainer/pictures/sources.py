"""The image and the two masks of a validation case, wherever on this machine they lie."""

import copy
import glob
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image

from nnunet_vit_trainer.plans.neighbours import shown_channel
from vit_backbone import UserError, reason_of, shorten

from .classes import ShownClass, errors_of
from .tones import are_colours, to_rgb

NO_IMAGE = "no image on this machine"


@dataclass(frozen=True)
class Model:
    """What is known of a trained model's data.

    Attributes:
        plans: the content of ``plans.json``, of one configuration.
        dataset: the content of ``dataset.json``.
        classes: of the data set.
        ignored: the value of what is not annotated.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    classes: list[ShownClass]
    ignored: int | None

    @property
    def manager(self) -> PlansManager:
        """nnU-Net's of the plans."""
        return PlansManager(copy.deepcopy(self.plans))

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration."""
        (settings,) = self.plans["configurations"].values()
        return settings

    @property
    def channels(self) -> list[str]:
        """The channels' names."""
        return [str(name) for name in self.dataset["channel_names"].values()]

    @property
    def shown(self) -> int:
        """The channel that is drawn where they are no colours."""
        return shown_channel(self.dataset)


@dataclass(frozen=True)
class Slice:
    """One slice of a case, as it is drawn.

    Attributes:
        image: (height, width, 3), 0 to 255.
        truth: labels, (height, width).
        prediction: likewise.
        aspect: a pixel's height by its width.
        said: what of the case this is, such as ``slice 4 of 20``; empty of all of a 2D image.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    aspect: float
    said: str


def read_slice(model: Model, case: str, truth: str, prediction: Path) -> Slice:
    """Read a case, and cut out of a volume the slice with most errors, as the network slices it.

    Without any error it is the slice with most foreground.

    Args:
        model: see there.
        case: its name.
        truth: the file of its mask, where the validation found it.
        prediction: the file of the predicted one.

    Raises:
        UserError: a file is gone or cannot be read, or the masks differ in shape.
    """
    reader = model.manager.image_reader_writer_class()
    axes = model.plans["transpose_forward"]
    ending = model.dataset["file_ending"]
    masks = []
    for file in (_find_truth(model, truth, case + ending), prediction):
        mask, properties = _read(reader.read_seg, str(file))
        masks.append(np.rint(mask[0]).astype(np.int32).transpose(axes))
    if masks[0].shape != masks[1].shape:
        raise UserError(f"the masks of case {case} differ in shape: {truth}, {prediction}")
    spacing = [properties["spacing"][axis] for axis in axes]
    at = _slice_with_most(errors_of(*masks, model.classes, model.ignored), masks[0] > 0)
    image, said = _read_image(model, case, at, masks[0].shape, reader)
    if len(masks[0]) > 1:
        said = ", ".join(filter(None, (f"slice {at + 1} of {len(masks[0])}", said)))
    return Slice(image, masks[0][at], masks[1][at], spacing[1] / spacing[2], said)


def _read(read: Callable[[Any], Any], files: Any) -> Any:
    try:
        return read(files)
    except Exception as error:  # whatever a reader of images raises
        raise UserError(f"{files} cannot be read: {reason_of(error)}") from error


def _slice_with_most(errors: np.ndarray, foreground: np.ndarray) -> int:
    counted = errors if errors.any() else foreground
    return int(counted.sum(axis=(1, 2)).argmax())


def _find_truth(model: Model, recorded: str, name: str) -> Path:
    """Find a mask where the validation did, or where nnU-Net has it: results may have moved."""
    dataset = model.plans["dataset_name"]
    folders = [
        Path(os.environ[variable], dataset, folder)
        for variable, folder in (
            ("nnUNet_preprocessed", "gt_segmentations"),
            ("nnUNet_raw", "labelsTr"),
        )
        if os.environ.get(variable)
    ]
    candidates = [Path(recorded), *(folder / name for folder in folders)]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise UserError(
            f"the mask {shorten(name)} lies neither where the validation found it nor in "
            "nnUNet_preprocessed or nnUNet_raw"
        )
    return found


def _read_image(
    model: Model, case: str, at: int, shape: tuple[int, ...], reader: Any
) -> tuple[np.ndarray, str]:
    """Read a slice from the raw data set, else as it was preprocessed, else draw none."""
    files = raw_files(model.plans["dataset_name"], model.dataset, case)
    if files:
        colours = are_colours(model.channels)
        shown = [str(file) for file in (files if colours else files[model.shown :][:1])]
        image, _ = _read(reader.read_images, shown)
        image = image.transpose(0, *(axis + 1 for axis in model.plans["transpose_forward"]))
        if image.shape[1:] != shape:
            raise UserError(f"the image of case {shorten(case)} and its mask differ in shape")
        # A picture of colours is one file, whatever its channels are called.
        colours = colours or (isinstance(reader, NaturalImage2DIO) and len(image) in (3, 4))
        return shown_channels(image[:, at], model, colours)
    found = _read(
        lambda _: _preprocessed_slice(model, case, at, shape), f"preprocessed case {shorten(case)}"
    )
    if found is None:
        return np.full((*shape[1:], 3), 128, dtype=np.uint8), NO_IMAGE
    image, said = shown_channels(found, model, are_colours(model.channels), preprocessed=True)
    return image, ", ".join(filter(None, ("image as preprocessed", said)))


def raw_files(dataset_name: str, dataset: Mapping[str, Any], case: str) -> list[Path]:
    """List a training case's files in nnUNet_raw, one a channel; none where they are not there."""
    root = os.environ.get("nnUNet_raw")
    if not root:
        return []
    folder = Path(root, dataset_name)
    listed = dataset.get("dataset", {}).get(case, {}).get("images")
    if listed:  # images that lie elsewhere
        return [file for path in listed if (file := folder / os.path.expandvars(path)).is_file()]
    pattern = f"{glob.escape(case)}_[0-9][0-9][0-9][0-9]{glob.escape(dataset['file_ending'])}"
    return sorted((folder / "imagesTr").glob(pattern))


def shown_channels(
    image: np.ndarray, model: Model, colours: bool, *, preprocessed: bool = False
) -> tuple[np.ndarray, str]:
    """Turn a slice into what a screen shows: three channels of colour, or one of them as grey.

    Args:
        image: (C, height, width), values as they are; or (1, height, width), the shown one's alone.
        model: tells what the channels are.
        colours: whether they are red, green and blue.
        preprocessed: whether the values are those that nnU-Net normalised.

    Returns:
        (height, width, 3), 0 to 255; and which channel it is, where there are more.
    """
    if colours:
        return to_rgb(image[:3]), ""
    window, shown = None, model.shown
    if model.settings["normalization_schemes"][shown] == "CTNormalization":
        windows = model.plans.get("foreground_intensity_properties_per_channel", {})
        found = windows.get(str(shown), {})
        low, high = found.get("percentile_00_5"), found.get("percentile_99_5")
        if preprocessed and None not in (low, high):  # as nnU-Net's CTNormalization
            mean, std = found["mean"], max(found["std"], 1e-8)
            low, high = (low - mean) / std, (high - mean) / std
        window = low, high
    names = model.channels
    said = f"channel {names[shown]} of {len(names)}" if len(names) > 1 else ""
    grey = image[shown:][:1] if len(image) > 1 else image
    return to_rgb(grey, window), shorten(said, 40)


def _preprocessed_slice(
    model: Model, case: str, at: int, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Read a preprocessed slice, and lay it where it was before nnU-Net cropped and resampled."""
    root = os.environ.get("nnUNet_preprocessed")
    name, identifier = model.plans["dataset_name"], model.settings["data_identifier"]
    if not root or not Path(root, name, identifier, f"{case}.pkl").is_file():
        return None
    folder = str(Path(root, name, identifier))
    data, _, _, properties = infer_dataset_class(folder)(folder, [case]).load_case(case)
    (first, last), *sides = properties["bbox_used_for_cropping"]
    whole = np.zeros((data.shape[0], *shape[1:]), dtype=np.float32)
    if first <= at < last:
        (top, bottom), (left, right) = sides
        for channel in range(len(whole)):
            piece = Image.fromarray(np.asarray(data[channel, at - first], dtype=np.float32))
            resized = piece.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
            whole[channel, top:bottom, left:right] = np.asarray(resized)
    return whole
