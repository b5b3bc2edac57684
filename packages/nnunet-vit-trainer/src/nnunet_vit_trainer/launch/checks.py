"""What is checked of a command's arguments before any work: cheap, and each one line."""

import os
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.plans.datasets import read_splits
from nnunet_vit_trainer.training.ending.stop import is_there, stop_file_of
from vit_backbone import UserError, quoted, shorten

from .request import TRAINERS, Request

_NNUNETS_SPLITS = 5
_SMALLEST_TILE = 4  # nnU-Net's blur reflects up to 3 pixels
_WRITTEN = r"progress\.png|overlay\.png|report\.html|debug\.json|training_log.*|checkpoint_.*"


def check_arguments(request: Request) -> None:
    """Refuse arguments that cannot be meant, or not together.

    Raises:
        UserError: naming the first.
    """
    weights = request.pretrained_weights
    if request.trainer not in TRAINERS:
        raise UserError(
            f"trainer {request.trainer!r} is not ours; -tr takes {' or '.join(TRAINERS)}"
        )
    if request.mode == "continue" and weights:
        raise UserError("--c and -pretrained_weights exclude each other")
    if request.with_best and not request.checkpoints:
        raise UserError("--disable_checkpointing and --val_best exclude each other")
    if weights and not os.path.isfile(weights):
        raise UserError(f"-pretrained_weights {weights}: no such file")


def parse_fold(fold: int | str) -> int | str:
    """Return a fold as nnU-Net takes it: a number, or ``"all"``.

    Args:
        fold: such as 0, ``"0"``, ``"00"`` or ``"all"``.

    Raises:
        UserError: anything else.
    """
    text = str(fold).strip()
    if text == "all":
        return text
    if isinstance(fold, bool) or not re.fullmatch(r"[0-9]{1,4}", text):
        raise UserError(f"fold {fold!r}: a number (0 to 4) or 'all' is expected")
    return int(text)


def first_fold(dataset_folder: Path, cases: int) -> str:
    """Return the fold to propose: 0, or ``all`` where too few cases and no splits are there.

    Args:
        dataset_folder: in nnUNet_preprocessed.
        cases: that are, or will be, preprocessed.
    """
    has_folds = cases >= _NNUNETS_SPLITS or (dataset_folder / "splits_final.json").exists()
    return "0" if has_folds else "all"


def check_fold(
    fold: int | str, dataset_folder: Path, data_identifier: str, *, resumes: bool = False
) -> None:
    """Refuse a fold that the dataset has not; nnU-Net would train on a random split.

    Args:
        fold: see `parse_fold`.
        dataset_folder: in nnUNet_preprocessed.
        data_identifier: its folder of preprocessed cases.
        resumes: it was trained already, by 0.1.0 maybe on such a split.

    Raises:
        UserError: no such fold, too few cases to split, a file of splits that is none, or one
            that names cases which are not there.
    """
    if fold == "all":
        return
    splits = read_splits(dataset_folder)
    cases = {file.stem for file in (dataset_folder / data_identifier).glob("*.pkl")}
    if first_fold(dataset_folder, len(cases)) == "all":
        raise UserError(
            f"{len(cases)} cases cannot be split into {_NNUNETS_SPLITS} folds; train fold 'all', "
            f"or write {dataset_folder / 'splits_final.json'}"
        )
    count = _NNUNETS_SPLITS if splits is None else len(splits)
    if int(fold) >= count:
        if resumes:
            return
        raise UserError(
            f"fold {fold}: there are {count} splits (0 to {count - 1}) of {dataset_folder.name}; "
            "give one of them, or 'all'"
        )
    if splits is not None:
        source = f"{dataset_folder / 'splits_final.json'}: fold {fold}"
        _check_split(splits[int(fold)], cases, source)


def _check_split(split: dict[str, Any], cases: set[str], source: str) -> None:
    """Refuse a split that nnU-Net's data workers would die of."""
    for part in ("train", "val"):
        if not split[part]:
            raise UserError(f"{source}: it has no case in {part!r}; write at least one")
        for name in split[part]:
            if not isinstance(name, str):
                raise UserError(f'{source}: {name!r} in {part!r} is no text; write "{name}"')
        if gone := sorted({*split[part]} - cases):
            raise UserError(
                f"{source}: {len(gone)} of {len(split[part])} cases in {part!r} are not among the "
                f"preprocessed ones, such as {quoted(gone[0])}; preprocess anew, or mend the file"
            )


def check_channels(names: dict[str, str], schemes: list[str]) -> None:
    """Refuse a dataset.json that was edited after the planning: the network would not fit the data.

    Args:
        names: the channel_names of dataset.json.
        schemes: the plans' normalization_schemes, one per channel of the preprocessed data.
    """
    if len(names) != len(schemes):
        listed = shorten(", ".join(map(str, names.values())), 60)
        raise UserError(
            f"dataset.json names {len(names)} channels ({listed}), "
            f"the plans have {len(schemes)}; plan and preprocess anew, or mend dataset.json"
        )


def check_stop_file(stop_file: str, fold_folder: Path) -> None:
    """Refuse a file to stop at that would stop the run at once, or that cannot appear.

    Args:
        stop_file: the config's ``train.stop_file``.
        fold_folder: see `stop_file_of`; it need not exist.
    """
    file = stop_file_of(stop_file, fold_folder)
    if file is None:
        return
    if file.parent == fold_folder and re.fullmatch(_WRITTEN, file.name):
        raise UserError(
            f"train.stop_file: a training writes {file.name} itself, and would end; name another"
        )
    if is_there(file):
        raise UserError(
            f"train.stop_file: {file} is there already, so the run would end after its first "
            "epoch; remove it to train, or validate what was trained with --val"
        )
    if os.path.isdir(file) or not (file.parent == fold_folder or os.path.isdir(file.parent)):  # noqa: PTH112 - no raise
        raise UserError(
            f"train.stop_file: {file} cannot become a file: it is a folder, or there is no folder "
            f"{file.parent.name!r} for it"
        )


def check_tile(patch_size: Sequence[int], strides: Sequence[Sequence[int]] | None) -> None:
    """Refuse a tile that nnU-Net's augmentation, or its targets of deep supervision, die of.

    Args:
        patch_size: height and width in pixels.
        strides: of the auxiliary outputs, and one more; ``None`` without deep supervision.
    """
    least, why = _SMALLEST_TILE, "nnU-Net blurs tiles"
    coarsest = prod(stride[0] for stride in (strides or ())[:-1])
    if round(min(patch_size) / coarsest) < 1:  # as nnU-Net rounds
        least, why = coarsest // 2 + 1, f"deep supervision has targets of 1/{coarsest} of it"
    if min(patch_size) < least:
        height, width = patch_size
        raise UserError(
            f"a tile of {height}x{width} px is too thin to train: {why}, so each side needs "
            f"{least}; set train.patch_size, which may be larger than the images"
        )


def check_checkpoints(fold_folder: Path) -> None:
    """Refuse to train without checkpoints beside those of another run.

    Its validation would stand beside weights that it is not of.
    """
    if any(fold_folder.glob("checkpoint_*.pth")):
        raise UserError(
            f"{fold_folder} holds checkpoints, which --disable_checkpointing would leave beside "
            "another training's validation; move them away, or copy the config to another name"
        )


def check_batch(batch_size: int, processes: int) -> None:
    """Refuse shares of unequal size: nnU-Net gathers the Dice of each image over the ranks."""
    if batch_size % processes:
        less = batch_size - batch_size % processes
        nearest = " or ".join(str(size) for size in (less, less + processes) if size)
        raise UserError(
            f"a batch of {batch_size} cannot be shared equally by the {processes} processes of "
            f"-num_gpus {processes} (or torchrun); set train.batch_size to {nearest}"
        )


def check_device(device: str, processes: int) -> None:
    """Refuse a device that is not there."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available; use -device cpu (or mps)")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("no MPS device is available; use -device cpu (or cuda)")
    if device == "mps" and processes > 1:
        raise UserError(f"{processes} processes need -device cuda or cpu; mps has one device")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    if device == "cuda" and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes on this machine (-num_gpus or torchrun's --nproc-per-node) need as "
            f"many CUDA devices; there are {torch.cuda.device_count()}"
        )
