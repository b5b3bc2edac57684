"""Whether some work fits a device's memory, and which batch does."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit

LARGEST_BATCH_TRIED = 1024
# What errors of a full memory say; only that of CUDA's allocator has a type of its own.
_NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")


def is_full_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory was not enough, whoever raised it.

    The compiler raises its own errors, which quote the one of the allocator.
    """
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _NO_MEMORY)
    return isinstance(error, MemoryError)


def fits_memory(work: Callable[[], Any], device: torch.device) -> bool:
    """Do some work, and say whether the device's memory was enough for it.

    Args:
        work: its other errors are raised.
        device: whose cache is given back where it was not enough.
    """
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_full_memory(error):
            raise
    else:
        return True
    if device.type == "cuda":
        torch.cuda.empty_cache()  # not above: the error holds on to what was computed
    return False


def resized(batch: dict[str, Any], size: int) -> dict[str, Any]:
    """Repeat or cut a batch to another size.

    Args:
        batch: ``data`` (B, C, H, W), and ``target``, a tensor or a list of them.
        size: at least 1.
    """
    rows = torch.arange(size) % len(batch["data"])
    target = batch["target"]
    targets = [t[rows] for t in target] if isinstance(target, list) else target[rows]
    return {"data": batch["data"][rows], "target": targets}


def fits(trainer: "nnUNetTrainer_vit", batch: dict[str, Any]) -> bool:
    """Say whether a training step with a batch fits the device's memory."""
    trainer.dataloader_train = itertools.repeat(batch)  # accumulate_steps takes more from it
    fitted = fits_memory(lambda: trainer.train_step(batch), trainer.device)
    trainer.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return fitted


def largest_that_fits(does_fit: Callable[[int], bool], planned: int) -> int:
    """Search by doubling from the planned batch, or by halving where that does not fit.

    Args:
        does_fit: tries a size.
        planned: at least 1.

    Returns:
        The largest size tried that fits, at most `LARGEST_BATCH_TRIED`; 0 if not even 1 does.
    """
    size = planned
    while size and not does_fit(size):
        size //= 2
    if size < planned:
        return size
    while size * 2 <= LARGEST_BATCH_TRIED and does_fit(size * 2):
        size *= 2
    return size
