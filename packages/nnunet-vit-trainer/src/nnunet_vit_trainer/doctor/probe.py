"""Take the trainer's own first steps, and write down what they show."""

import itertools
import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from nnunet_vit_trainer.checkpoints.content import unwrap
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.training import trainer as trainers
from vit_backbone import UserError, load_weights

from .examination import Examination
from .measure import (
    fits,
    fits_memory,
    forward_flop,
    largest_that_fits,
    peak_memory,
    predictor_of,
    resized,
    seconds_of,
)
from .problems import Problem, foreseeable, padded_size


def probe(
    found: Examination,
    trainer_class_name: str,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    device: str,
    workers: int,
) -> None:
    """Start a training, take steps, predict a tile, and add to what was found.

    Args:
        found: added to.
        trainer_class_name: one of ours.
        plans: derived.
        dataset_json: of the data set.
        device: ``cuda``, ``cpu`` or ``mps``.
        workers: processes that would load the data.
    """
    (configuration,) = plans["configurations"]
    trainer = getattr(trainers, trainer_class_name)(
        plans | {"continue_training": False},
        configuration,
        "all",
        dataset_json,
        torch.device(device),
    )
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
    trainer.initialize()
    plans = trainer.plans_manager.plans
    weights = plans[PLANS_KEY]["weights"]
    line = "random initialisation"
    if weights is not None:
        line = load_weights(unwrap(trainer.network).backbone, weights["file"]).line()
    found.facts += [("weights", line), ("normalisation", plans[PLANS_KEY]["input_norm"])]
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
    start = time.perf_counter()
    batch = next(trainer.dataloader_train)
    loading = time.perf_counter() - start
    trainer.dataloader_train = itertools.repeat(batch)  # accumulate_steps takes more from it
    planned = trainer.batch_size
    losses: list[float] = []
    seconds: list[float] = []

    def step() -> None:
        losses.append(float(trainer.train_step(batch)["loss"]))

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
        _check_step(trainer, losses, found)
        tell = partial(_tell_costs, trainer, batch, seconds[0], loading, workers, found)
        _try_costs(trainer, tell, found)
    found.facts.append(("peak memory", memory if fitted else "more than there is"))
    remedy = "use a smaller one"
    if trainer.device.type == "cuda":
        trainer.network = unwrap(trainer.network)  # torch.compile would compile for every size
        largest = largest_that_fits(lambda size: fits(trainer, resized(batch, size)), planned)
        found.facts.append(("largest batch", f"{largest} (doubled from {planned}, not compiled)"))
        remedy = f"{largest} does" if largest else "not even 1 does; use a smaller backbone"
    else:
        found.facts.append(("largest batch", f"not measured on {trainer.device.type}"))
    if not fitted:
        found.problems.append(
            Problem(
                "train.batch_size",
                f"{planned} does not fit this device, {remedy} (train.grad_checkpointing: true "
                "needs less memory)",
            )
        )


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


def _try_costs(trainer: Any, tell: Callable[[], None], found: Examination) -> None:
    """Tell the costs where memory is enough to find them; leave the trainer as it was."""
    trainer.network.eval()
    if not fits_memory(tell, trainer.device):
        found.problems.append(
            Problem(
                "train.patch_size",
                "a training step fits this device's memory, validating a batch or predicting a "
                "tile does not; use a smaller one, or a smaller train.batch_size",
            )
        )
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()


def _tell_costs(
    trainer: Any,
    batch: dict[str, Any],
    step_seconds: float,
    loading: float,
    workers: int,
    found: Examination,
) -> None:
    """Predict a tile, and say what a step, a tile and the whole run cost."""
    train = trainer.plans_manager.plans[PLANS_KEY]["train"]
    trainer.validation_step(_copied(batch))
    validation_seconds = seconds_of(lambda: trainer.validation_step(_copied(batch)), trainer.device)
    trainer.set_deep_supervision_enabled(False)
    image = batch["data"][:1].to(trainer.device)
    flop: list[int] = []
    counted = fits_memory(
        lambda: flop.append(forward_flop(unwrap(trainer.network), image)), trainer.device
    )
    work = f"{flop[0] / 1e9:.1f} GFLOP forward" if counted else "its GFLOP take too much memory"
    predictor = predictor_of(trainer)
    logits = predictor.predict_sliding_window_return_logits(batch["data"][0][:, None])
    tile_seconds = seconds_of(
        lambda: predictor.predict_sliding_window_return_logits(batch["data"][0][:, None]),
        trainer.device,
    )
    if not torch.isfinite(logits).all():
        found.problems.append(
            Problem("model.input_norm", "the prediction of a training tile is not finite")
        )
    batches = train["accumulate_steps"]
    loading_seconds = loading * batches / max(workers, 1)
    waiting = max(step_seconds, loading_seconds) if workers else step_seconds + loading_seconds
    epoch = (
        waiting * train["num_iterations_per_epoch"]
        + validation_seconds * train["num_val_iterations_per_epoch"]
    )
    mirrored = 2 ** len(trainer.inference_allowed_mirroring_axes or ())
    iterations = [train[f"num_{of}iterations_per_epoch"] for of in ("", "val_")]
    found.facts += [
        (
            "one tile",
            f"{work}; predicted with its {mirrored - 1} mirror images in {tile_seconds:.3g} s",
        ),
        (
            "one step",
            f"{step_seconds:.3g} s on {batches * trainer.batch_size} tiles, which take one of "
            f"{max(workers, 1)} processes {loading * batches:.2g} s to load",
        ),
        (
            "whole run",
            f"{epoch * train['num_epochs'] / 3600:.2f} h: {train['num_epochs']} epochs of "
            f"{iterations[0]} steps and {iterations[1]} of online validation",
        ),
    ]


def _copied(batch: dict[str, Any]) -> dict[str, Any]:
    """Copy the target, in which nnU-Net's validation overwrites the ignore label."""
    target = batch["target"]
    copied = [t.clone() for t in target] if isinstance(target, list) else target.clone()
    return {"data": batch["data"], "target": copied}
