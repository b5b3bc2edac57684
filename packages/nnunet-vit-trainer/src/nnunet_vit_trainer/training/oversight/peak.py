"""The peak memory of a process, as a training's log tells it."""

import sys

import torch


def peak_bytes(device: torch.device) -> int | None:
    """Return the peak so far: of the GPU's memory, or of this process where it trains on the CPU.

    Args:
        device: where the network is.

    Returns:
        ``None`` where it cannot be told.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource  # not on Windows

    # Kilobytes, but bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def peak_line(device: torch.device) -> str:
    """Say it as `results.training_log` reads it.

    Args:
        device: where the network is.
    """
    peak = peak_bytes(device)
    return "Peak memory: " + ("not known" if peak is None else f"{peak / 2**30:.2f} GiB")
