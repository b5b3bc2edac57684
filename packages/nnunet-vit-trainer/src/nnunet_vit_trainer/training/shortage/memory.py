"""Which options to change where a device's memory is not enough, and to what."""

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist

from nnunet_vit_trainer.checkpoints.content import unwrap
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError
from vit_backbone.heads.recompute import set_recompute

from .fitting import fits, is_full_memory, largest_that_fits, resized

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit

# Methods of a trainer, by which a traceback tells what was under way.
_STEP, _ONLINE, _FINAL = "train_step", "validation_step", "perform_actual_validation"


class Full(NamedTuple):
    """An error of a full memory, without what the error holds on to.

    Attributes:
        place: ``train_step``, ``validation_step``, ``perform_actual_validation``, or ``""``.
        asked: how much more was asked for, such as ``2.00 GiB``; ``""`` where nobody says it.
    """

    place: str
    asked: str


def within_memory(trainer: "nnUNetTrainer_vit", work: Callable[[], Any]) -> None:
    """Do a part of a run; where memory is not enough, say which options to change.

    After a training step that does not fit a GPU, smaller ones are tried, so that what the message
    says of them is measured.

    Args:
        trainer: that does the work; after an error it is of no use any more.
        work: its other errors are raised.

    Raises:
        UserError: memory is not enough.
    """
    full = full_memory(work)
    if full is None:
        return
    alone = not (dist.is_available() and dist.is_initialized())
    measures = full.place == _STEP and trainer.device.type == "cuda" and alone
    raise UserError(advice(trainer, full, what_fits(trainer) if measures else ()))


def full_memory(work: Callable[[], Any]) -> Full | None:
    """Do some work and say where memory was not enough, or ``None``."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_full_memory(error):
            raise
        names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        place = next((name for name in names if name in (_STEP, _ONLINE, _FINAL)), "")
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        return Full(place, asked[1] if asked else "")
    return None


def advice(trainer: "nnUNetTrainer_vit", full: Full, measured: Sequence[str] = ()) -> str:
    """Say in one line what did not fit and what to change.

    Args:
        trainer: see `within_memory`.
        full: what happened.
        measured: options that were found to be enough; without any, what to try first.
    """
    settings = trainer.configuration_manager
    size = f"train.batch_size {settings.batch_size} and train.patch_size {settings.patch_size}"
    smaller = f"a smaller train.patch_size or {_backbone(trainer)}"
    asked = f" ({full.asked} more asked for)" if full.asked else ""
    lacking = f"{_memory(trainer.device)}{asked}"
    if not full.place:
        return f"the network does not fit {lacking}; use {_backbone(trainer)}"
    if full.place == _FINAL:
        return (
            f"predicting a case of the final validation does not fit {lacking}; the training is "
            f"saved: free memory, or validate on the CPU (--val -device cpu); else train anew with "
            f"{smaller}"
        )
    if full.place == _ONLINE:
        use = " or ".join([*_halved(settings.batch_size), smaller])
        return f"validating a batch of {size} does not fit {lacking}; use {use}"
    if measured:
        use = f"it fits with {', or with '.join(measured)}; {smaller} needs less too"
    else:
        switches = [f"train.{name}: true" for name in _switch_on(trainer)]
        use = f"use {', '.join([*switches, *_halved(settings.batch_size)])} or {smaller}"
    return f"a training step of {size} does not fit {lacking}; {use}{_continuing(trainer)}"


def what_fits(trainer: "nnUNetTrainer_vit") -> list[str]:
    """Try which options make a training step fit the device: each is the key and its value.

    The network is not compiled for it, which takes somewhat more memory.

    Args:
        trainer: whose step did not fit; its network goes on training, its options are changed.
    """
    found: list[str] = []
    loader, planned = trainer.dataloader_train, trainer.batch_size
    trainer.network = unwrap(trainer.network)  # torch.compile would compile for every size
    with contextlib.suppress(Exception):  # a device that a full memory has left in disorder
        batch = next(loader)
        largest = largest_that_fits(lambda n: fits(trainer, resized(batch, n)), planned // 2)
        if 0 < largest < planned:
            found.append(f"train.batch_size: {largest}")
        switches: list[str] = []
        for name in _switch_on(trainer):
            switches.append(f"train.{name}: true")
            if fits(trainer, resized(batch, planned)):
                found.append(" and ".join(switches))
                break
    trainer.dataloader_train = loader  # `fits` has put another one there; this one is to be stopped
    return found


def _switch_on(trainer: "nnUNetTrainer_vit") -> Iterator[str]:
    """Switch on, one after the other, what keeps less for the backward pass; yield its name."""
    network, recipe = unwrap(trainer.network), trainer.recipe
    blocks_train = any(p.requires_grad for p in network.backbone.blocks.parameters())
    if blocks_train and not recipe["grad_checkpointing"]:
        network.backbone.set_grad_checkpointing(True)
        yield "grad_checkpointing"
    if not recipe["grad_checkpointing_head"]:
        with contextlib.suppress(UserError):  # a head that has no use for it
            set_recompute(network.head)
            yield "grad_checkpointing_head"


def _halved(batch_size: int) -> list[str]:
    """Return half of a batch that the processes can share, as an option; none of one image."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    half = batch_size // 2 // processes * processes
    return [f"train.batch_size: {half}"] if half else []


def _backbone(trainer: "nnUNetTrainer_vit") -> str:
    size = trainer.plans_manager.plans[PLANS_KEY]["model"].get("backbone_size")
    return f"a smaller model.backbone_size ({size} now)" if size else "a smaller model.backbone"


def _memory(device: torch.device) -> str:
    """Say how much there is, and how much of it other processes have taken."""
    if device.type != "cuda":
        return f"the memory that there is ({device.type})"
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    taken = f", of which {others / 2**30:.1f} are others'" if others > 2**30 else ""
    return f"the GPU's {total / 2**30:.1f} GiB{taken}"


def _continuing(trainer: "nnUNetTrainer_vit") -> str:
    """Say what `--c` takes, where there is something to continue."""
    if not any(Path(trainer.output_folder).glob("checkpoint_*.pth")):
        return ""
    return "; of these --c takes only the checkpointing options"
