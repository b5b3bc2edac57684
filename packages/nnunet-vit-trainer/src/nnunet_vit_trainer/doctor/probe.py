"""Take the trainer's own first steps, and write down what they show."""

import itertools
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nnunet_vit_trainer.checkpoints.content import unwrap
from nnunet_vit_trainer.launch.request import Prepared, Request
from nnunet_vit_trainer.plans.datasets import environment, read_dataset_json
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.training import trainer as trainers
from nnunet_vit_trainer.training.shortage.fitting import (
    fits,
    fits_memory,
    largest_that_fits,
    resized,
)
from vit_backbone import UserError

from .costs import Seconds, tell_costs
from .data import find_bad_cases, look_at_cases, look_at_validations
from .examination import Examination
from .measure import peak_memory, seconds_of
from .problems import Problem, foreseeable, padded_size

_BATCHES, _SECONDS = 20, 5
"""Batches that are loaded to time it, at most, and the seconds after which none is begun."""


def probe(found: Examination, request: Request, prepared: Prepared, workers: int) -> None:
    """Start a training, take steps, predict a tile, and add to what was found.

    Args:
        found: added to.
        request: what to train.
        prepared: what from.
        workers: processes that would load the data.
    """
    data = Path(environment("nnUNet_preprocessed"), prepared.dataset)
    trainer = getattr(trainers, request.trainer)(
        prepared.plans | {"continue_training": False},
        request.configuration,
        request.fold,
        read_dataset_json(data),
        torch.device(request.device),
    )
    look_at_validations(Path(prepared.folder), found)
    look_at_cases(trainer, found)
    if found.is_fatal:
        return
    try:
        _begin(trainer, found, workers)
    except UserError:
        raise
    except Exception:  # whatever a reader says of a case that was not looked at
        problem = find_bad_cases(trainer)
        if problem is None:
            raise
        found.problems.append(problem)


def _begin(trainer: Any, found: Examination, workers: int) -> None:
    """Start, and take steps if that fits the memory."""
    if not fits_memory(lambda: _start(trainer, found), trainer.device):
        found.problems.append(
            Problem(
                "model.backbone_size",
                "the network, or a first batch beside it, does not fit this device's memory; use a "
                "smaller backbone, or a smaller train.batch_size",
            )
        )
        return
    _describe(trainer, found)
    _try_steps(trainer, found, workers)


def _start(trainer: Any, found: Examination) -> None:
    """Begin as a training does, but keep what loading the weights reports."""
    plans = trainer.plans_manager.plans
    found.facts += [
        ("weights", trainer.begin()),
        ("normalisation", plans[PLANS_KEY]["input_norm"]),
    ]
    if trainer.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # as nnU-Net's own command
        torch.cuda.reset_peak_memory_stats()
    trainer.on_train_start()
    trainer.on_train_epoch_start()


def _describe(trainer: Any, found: Examination) -> None:
    network = unwrap(trainer.network)
    size = trainer.configuration_manager.patch_size
    patch = network.backbone.patch_embed.patch_size
    height, width = padded_size(size, patch)
    rows, columns = height // patch[0], width // patch[1]
    prefix = network.backbone.num_prefix_tokens
    padding = height * width / math.prod(size) - 1
    found.facts.append(
        (
            "tile",
            f"{size[0]} x {size[1]} px, {rows} x {columns} patches of {patch[0]} px: "
            f"{rows * columns + prefix} tokens, {padding:.0%} padding",
        )
    )
    found.trainable = trainable_parts(network, trainer.optimizer.param_groups)
    found.problems += foreseeable(trainer.plans_manager.plans, patch)


def trainable_parts(network: Any, groups: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Sum up an optimizer's groups by part of the network: name, size, rates, weight decays.

    Args:
        network: a `ViTSegmentationModel`, unwrapped.
        groups: its optimizer's; ``initial_lr``, where it is there, is the full rate.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    parts: dict[str, tuple[list[int], set[float], set[float]]] = {}
    for group in groups:
        for parameter in group["params"]:
            part = parts.setdefault(_part_of(names[id(parameter)]), ([], set(), set()))
            part[0].append(parameter.numel())
            part[1].add(group.get("initial_lr", group["lr"]))
            part[2].add(group["weight_decay"])
    return [
        (name, f"{sum(sizes):,}", _span(rates), _span(decays))
        for name, (sizes, rates, decays) in parts.items()
    ]


def _part_of(name: str) -> str:
    if ".lora_" in name:
        return "LoRA"
    if name.startswith("backbone.patch_embed."):
        return "patch embedding"
    return name.split(".")[0]


def _span(values: set[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


def _try_steps(trainer: Any, found: Examination, workers: int) -> None:
    """Take training steps, a validation step and a tile, and say what they cost."""
    batch, loading = _load(trainer.dataloader_train)
    trainer.dataloader_train = itertools.repeat(batch)  # accumulate_steps takes more from it
    seconds: list[float] = []

    def step() -> None:
        trainer.train_step(batch)
        trainer.steps.read()

    def steps() -> None:
        step()
        seconds.append(seconds_of(step, trainer.device))

    try:
        fitted = fits_memory(steps, trainer.device)
    except UserError as error:  # what the trainer itself watches for
        found.problems.append(_as_problem(error))
        return
    memory = peak_memory(trainer.device)
    if fitted:
        _check_step(trainer, trainer.steps.losses, found)
        tell_costs(trainer, batch, Seconds(seconds[0], loading), workers, found)
    found.facts.append(("peak memory", memory if fitted else "more than there is"))
    remedy = _try_batches(trainer, batch, found)
    if not fitted:
        found.problems.append(
            Problem(
                "train.batch_size",
                f"{trainer.batch_size} does not fit this device, {remedy} "
                "(train.grad_checkpointing: true needs less memory)",
            )
        )


def _load(loader: Iterator[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """Return a batch, and the mean seconds of some: augmentation is drawn, and a few take long."""
    start = time.perf_counter()
    batch, count = next(loader), 1
    while count < _BATCHES and time.perf_counter() - start < _SECONDS:
        next(loader)
        count += 1
    return batch, (time.perf_counter() - start) / count


def _try_batches(trainer: Any, batch: dict[str, Any], found: Examination) -> str:
    """Search the largest batch that fits, where that can be measured; say what else would."""
    planned, device = trainer.batch_size, trainer.device.type
    if device != "cuda":
        found.facts.append(("largest batch", f"not measured on {device}"))
        return "use a smaller one"
    trainer.network = unwrap(trainer.network)  # torch.compile would compile for every size
    largest = largest_that_fits(lambda size: fits(trainer, resized(batch, size)), planned)
    found.facts.append(("largest batch", f"{largest} (doubled from {planned}, not compiled)"))
    return f"{largest} does" if largest else "not even 1 does; use a smaller backbone"


def _as_problem(error: UserError) -> Problem:
    """Take the first config key that a message names."""
    key = re.search(r"\b(?:model|lora|train)\.\w+", str(error))
    return Problem(key.group() if key else "config", str(error))


def _check_step(trainer: Any, losses: list[float], found: Examination) -> None:
    if not any(math.isfinite(loss) for loss in losses):
        found.problems.append(
            Problem(
                "train.amp_dtype",
                "the loss or a gradient is not finite from the first step on; try float32, or "
                "other weights (model.checkpoint_path)",
            )
        )
    elif not math.isfinite(losses[-1]):
        found.problems.append(
            Problem("train.initial_lr", f"the loss is not finite after {len(losses)} steps")
        )
    idle = [
        name
        for name, parameter in unwrap(trainer.network).named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    if idle:
        found.problems.append(
            Problem(
                "model.layer_indices",
                f"{len(idle)} trainable tensors get no gradient ({idle[0]} is one)",
                fatal=False,
            )
        )
