"""Measure a trainer on its device: time and memory."""

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_vit_trainer.training.oversight.peak import peak_bytes

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit


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


def peak_memory(device: torch.device) -> str:
    """Say the peak so far, and what it is the peak of."""
    peak = peak_bytes(device)
    if peak is None:
        return f"not measured on {device.type} here"
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        return f"{peak / 2**30:.1f} of {total / 2**30:.1f} GiB on the GPU"
    return f"{peak / 2**30:.1f} GiB, the whole process with its libraries"


def predictor_of(trainer: "nnUNetTrainer_vit") -> nnUNetPredictor:
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


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
