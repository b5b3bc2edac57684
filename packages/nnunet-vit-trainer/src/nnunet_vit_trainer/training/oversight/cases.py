"""Preprocessed cases that cannot be trained on: which one it is, and what is wrong with it.

nnU-Net looks for these only if it is told to (``--verify_dataset_integrity``), and of infinities
and missing channels its errors name no case.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_vit_trainer.training.shortage.workers import WORKER_FAILED
from vit_backbone import UserError, reason_of, shorten

SAMPLE = 20
"""Cases that are looked at before a training."""

_OUTSIDE = -1  # of what nnU-Net cropped an image to
_NAMED = 3
_REMEDY = (
    "mend the files in nnUNet_raw (nnUNetv2_plan_and_preprocess --verify_dataset_integrity looks "
    "at all of them) and preprocess anew"
)
EMPTY_MASKS = (
    "the masks of all {} cases that were looked at are background: there is nothing to learn in "
    "them; is the label of dataset.json the value in the masks?"
)


def sample_of(names: Sequence[str], count: int = SAMPLE) -> list[str]:
    """Return so many cases, evenly spread over all, or all where they are fewer."""
    picked = np.linspace(0, len(names) - 1, min(count, len(names)))
    return [names[int(i)] for i in picked]


def labels_allowed(manager: LabelManager) -> set[int]:
    """Return the values that a preprocessed mask may hold: those of dataset.json, and "outside"."""
    ignored = {manager.ignore_label} if manager.has_ignore_label else set()
    return {*map(int, manager.all_labels), *ignored, _OUTSIDE}


def faults_of(trainer: nnUNetTrainer, names: Iterable[str], *, pixels: bool) -> dict[str, str]:
    """Return what is wrong with cases, by their names; nothing of those that can be trained on.

    Args:
        trainer: whose preprocessed data they are of.
        names: the cases to look at: their channels, and the labels in their masks.
        pixels: look at every pixel of the images too, which takes longer.
    """
    names = sorted({*names})
    channels = len(trainer.configuration_manager.normalization_schemes)
    labels = labels_allowed(trainer.label_manager)
    dataset = dataset_of(trainer, names) if names else None
    faults = {name: _fault_of(dataset, name, channels, labels, pixels) for name in names}
    return {name: fault for name, fault in faults.items() if fault}


def warn_of_bad_cases(trainer: nnUNetTrainer, names: Iterable[str]) -> None:
    """Say in the log what is wrong with the cases of a validation; see `faults_of`."""
    for name, fault in faults_of(trainer, names, pixels=True).items():
        trainer.print_to_log_file(f"WARNING: validation case {name} {fault}")


def dataset_of(trainer: nnUNetTrainer, names: Iterable[str]) -> Any:
    """Return nnU-Net's data set of some preprocessed cases."""
    folder = trainer.preprocessed_dataset_folder
    assert folder is not None  # nnU-Net has none where nnUNet_preprocessed is not set
    return infer_dataset_class(folder)(folder, list(names))


def describe(faults: Mapping[str, str]) -> str:
    """Say in one line which cases are bad, up to three of them, and what to do.

    Args:
        faults: see `faults_of`; at least one.
    """
    first = [f"case {shorten(name, 60)} {fault}" for name, fault in faults.items()][:_NAMED]
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return f"{'; '.join(first)}{more}: {_REMEDY}"


def refuse_bad_cases(trainer: nnUNetTrainer, names: Iterable[str], *, pixels: bool) -> None:
    """Refuse to go on with cases that cannot be trained on; see `faults_of`.

    Raises:
        UserError: naming them.
    """
    if faults := faults_of(trainer, names, pixels=pixels):
        raise UserError(describe(faults))


def refuse_infinite(trainer: nnUNetTrainer, batches: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to go on where a loss is not finite because an image is not.

    Augmentation, the weights or the learning rate may be the reason as well: the cases themselves
    are looked at.

    Args:
        trainer: see `faults_of`.
        batches: of nnU-Net's loaders: ``data`` (B, C, H, W), ``keys``.

    Raises:
        UserError: naming them.
    """
    suspects = [
        name
        for batch in batches
        for name, image in zip(cases_of([batch]), batch["data"], strict=False)
        if not torch.isfinite(image).all()
    ]
    refuse_bad_cases(trainer, suspects, pixels=True)


@contextlib.contextmanager
def naming_bad_cases(
    trainer: nnUNetTrainer, batches: Iterable[Mapping[str, Any]]
) -> Iterator[None]:
    """Where a loss dies of labels that the network has no output for, say whose they are.

    Args:
        trainer: see `faults_of`.
        batches: of nnU-Net's loaders.

    Raises:
        UserError: naming them, in place of the loss's error; or a batch norm of a single value.
    """
    try:
        yield
    except (RuntimeError, IndexError):
        refuse_bad_cases(trainer, cases_of(batches), pixels=False)
        raise
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "a batch norm has one value per channel, of which it knows no variance; use a larger "
            "train.batch_size or train.patch_size, or model.decoder.norm: group"
        ) from error


def name_what_failed_in_workers(trainer: nnUNetTrainer, error: Exception) -> None:
    """Where one of nnU-Net's data workers failed, look at all cases of the fold for the reason.

    Args:
        trainer: see `faults_of`.
        error: what ended the training; another one than of a data worker is left alone.

    Raises:
        UserError: naming cases that they cannot have loaded.
    """
    if WORKER_FAILED in str(error):
        training, validation = trainer.do_split()
        refuse_bad_cases(trainer, [*training, *validation], pixels=False)


def cases_of(batches: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the cases that batches of nnU-Net's loaders are of."""
    return [str(name) for batch in batches for name in batch.get("keys", ())]


def have_foreground(trainer: nnUNetTrainer, names: Sequence[str]) -> bool:
    """Say whether the mask of any of the cases holds more than background."""
    dataset = dataset_of(trainer, names)
    return any((np.asarray(dataset.load_case(name)[1][:]) > 0).any() for name in names)


def _fault_of(dataset: Any, name: str, channels: int, labels: Collection[int], pixels: bool) -> str:
    try:
        image, mask, *_ = dataset.load_case(name)
        if image.shape[0] != channels:
            return f"has {image.shape[0]} channels, the plans have {channels}"
        unknown = sorted({*np.unique(np.asarray(mask[:])).tolist()} - {*labels})
        if unknown:
            allowed = ", ".join(str(label) for label in sorted(labels) if label != _OUTSIDE)
            values = ", ".join(f"{label:g}" for label in unknown[:_NAMED])
            return f"has label {values} in its mask, dataset.json names {shorten(allowed, 40)}"
        if pixels:
            bad = [i for i in range(channels) if not np.isfinite(np.asarray(image[i])).all()]
            return f"has NaN or infinite pixels in channel {bad[0]}" if bad else ""
    except Exception as error:  # blosc2, numpy and pickle have errors of their own
        return f"cannot be read ({reason_of(error, 80)})"
    return ""
