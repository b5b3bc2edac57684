"""Measure a trainer on its device: time, memory, floating-point operations, the batch that fits."""

import itertools
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

LARGEST_BATCH_TRIED = 1024
# What errors of a full memory say; only that of CUDA's allocator has a type of its own.
_NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")


def fits_memory(work: Callable[[], Any], device: torch.device) -> bool:
    """Do some work, and say whether the device's memory was enough for it.

    Args:
        work: its other errors are raised.
        device: whose cache is given back where it was not enough.
    """
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(w in str(error) for w in _NO_MEMORY):
            raise
    else:
        return True
    if device.type == "cuda":
        torch.cuda.empty_cache()  # not above: the error holds on to what was computed
    return False


def seconds_of(work: Callable[[], Any], device: torch.device, budget: float = 5.0) -> float:
    """Time some work that has run once already: the median of up to five runs, in seconds.

    Args:
        work: what to time.
        device: waited for.
        budget: seconds after which no further run is begun.
    """
    times: list[float] = []
    while len(times) < 5 and sum(times) < budget:
        _wait_for(device)
        start = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - start)
    return median(times)


def forward_flop(network: nn.Module, image: torch.Tensor) -> int:
    """Count the floating-point operations of one forward pass (a multiply-add is two).

    Attention is written out, which may take more memory than training does.
    """
    counter = FlopCounterMode(display=False)
    # Written out as matrix products: the counter does not know every fused attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(image)
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> str:
    """Say the peak so far, and what it is the peak of."""
    if device.type == "cuda":
        peak, total = torch.cuda.max_memory_allocated(device), torch.cuda.mem_get_info(device)[1]
        return f"{peak / 2**30:.1f} of {total / 2**30:.1f} GiB on the GPU"
    if device.type != "cpu" or sys.platform == "win32":
        return f"not measured on {device.type} here"
    import resource  # not on Windows

    # Kilobytes, but bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return f"{peak / 2**30:.1f} GiB, the whole process with its libraries"


def predictor_of(trainer: nnUNetTrainer) -> nnUNetPredictor:
    """Return nnU-Net's predictor as its final validation makes it."""
    predictor = nnUNetPredictor(
        perform_everything_on_device=trainer.device.type == "cuda",
        device=trainer.device,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    return predictor


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


def fits(trainer: nnUNetTrainer, batch: dict[str, Any]) -> bool:
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


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
