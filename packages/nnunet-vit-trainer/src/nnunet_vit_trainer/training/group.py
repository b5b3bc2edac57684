"""The group that this process trains in: its device, its network, its time limit.

torch's environment variables say who this process is: RANK and WORLD_SIZE among all, LOCAL_RANK
among those of its machine.
"""

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vit_backbone import UserError

from .ending.stop import Stopped

TIMEOUT_VARIABLE = "nnUNet_vit_timeout"
_TIMEOUT = 600


@contextlib.contextmanager
def process_group(device: str, store: dist.Store) -> Iterator[None]:
    """Make this process a member of the default group: nccl on CUDA, gloo on CPUs.

    A process that waits longer for another than the seconds that the environment variable
    ``nnUNet_vit_timeout`` says (600) gives up.

    Raises:
        UserError: there is no CUDA device for this process.
    """
    bound = local_device(device)
    if bound.type == "cuda":
        torch.cuda.set_device(bound)
    elif "OMP_NUM_THREADS" not in os.environ:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    # nnU-Net's constructor takes any group for one of CUDA devices.
    warnings.filterwarnings("ignore", message="torch.cuda.amp.GradScaler is enabled")
    # A class token's gradient is a slice of others', and DDP copies it: a few kilobytes.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    dist.init_process_group(
        "nccl" if bound.type == "cuda" else "gloo",
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=_timeout(),
        device_id=bound if bound.type == "cuda" else None,
    )
    try:
        yield
    except Stopped:
        # Where Python ends with gloo's threads, it may abort the process (7 times in 20).
        if bound.type != "cuda":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()  # not after an error: nccl's would wait for the others


def local_device(device: str) -> torch.device:
    """Return the device of this process: of CUDA devices that with the index LOCAL_RANK.

    Raises:
        UserError: the machine has fewer CUDA devices than processes.
    """
    if device != "cuda":
        return torch.device(device)
    index = int(os.environ["LOCAL_RANK"])
    if index >= torch.cuda.device_count():
        raise UserError(
            f"process {index} of {socket.gethostname()} has no CUDA device, there are "
            f"{torch.cuda.device_count()}; start at most so many on each machine "
            "(--nproc-per-node)"
        )
    return torch.device(device, index)


def wrap(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Wrap a network so that its gradients are averaged over all ranks.

    Batch norms take their statistics from all ranks.

    Args:
        network: on the device.
        device: of this rank.

    Raises:
        UserError: batch norms on a CPU, where torch cannot join their statistics.
    """
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    # Of one, two or three dimensions: what they have in common has no public name.
    elif any(isinstance(module, _BatchNorm) for module in network.modules()):
        raise UserError(
            "this network has batch norms (model.decoder.norm: batch), which several processes "
            "share on CUDA only; train in one process, or with group norm"
        )
    # Buffers do not differ between ranks. DDP would broadcast them in a forward pass, in the final
    # validation too, where a rank may have no case: the others would wait for it.
    devices = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # The successor of broadcast_buffers came with torch 2.15.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)


def largest_of_ranks(number: int, device: torch.device) -> int:
    """Return the largest of the numbers that the ranks give; alone, one's own.

    All ranks must call it. None goes on before all have come here.

    Args:
        number: at least 0.
        device: of this rank.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return number
    largest = torch.tensor(number, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def _timeout() -> timedelta:
    given = os.environ.get(TIMEOUT_VARIABLE, str(_TIMEOUT))
    if not given.isdecimal() or int(given) == 0:
        raise UserError(f"{TIMEOUT_VARIABLE}={given}: a number of seconds is expected")
    return timedelta(seconds=int(given))
