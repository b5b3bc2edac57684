"""What a checkpoint holds, and how it is written."""

import os
import random
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, reason_of
from vit_backbone.weights.reading import allowed_in_files

from .files import written_whole

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.from_plans import BuiltFromPlans
    from vit_backbone import ViTSegmentationModel

REBUILT_FROM = "rebuilt_from"
"""A key of our checkpoints: the weight file that completes it; ``None`` where nothing lacks."""

# What checkpoints hold beside tensors and Python's own types: numpy's numbers and arrays, whose
# functions have two names (numpy moved them).
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
_SAFE: list[Any] = [
    np.ndarray,
    np.dtype,
    *[(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")],
    *[(_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")],
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "u4", "u8", "?")},
]


def unwrap(network: nn.Module) -> "ViTSegmentationModel":
    """Return the network inside of DDP and torch.compile, whose wrapper has no public name."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    plain = network._orig_mod if isinstance(network, OptimizedModule) else network
    return cast("ViTSegmentationModel", plain)  # as `build_network` returns it


def frozen_names(network: "ViTSegmentationModel") -> set[str]:
    """Name what the backbone's weight file can restore: the backbone's frozen parameters.

    Not among them are adapters (those behind the last tap are frozen too), buffers (a BatchNorm's
    statistics move though its parameters are frozen) and anything of the head.

    Args:
        network: a `ViTSegmentationModel`, unwrapped.
    """
    return {
        f"backbone.{name}"
        for name, parameter in network.backbone.named_parameters()
        if not parameter.requires_grad and ".lora_" not in name
    }


def trained_state(network: "ViTSegmentationModel") -> dict[str, torch.Tensor]:
    """Return a network's state without its `frozen_names`: what a training changed, and the head.

    Args:
        network: a `ViTSegmentationModel`, unwrapped.
    """
    left_out = frozen_names(network)
    return {n: tensor for n, tensor in network.state_dict().items() if n not in left_out}


def fill_up(weights: dict[str, torch.Tensor], network: "ViTSegmentationModel") -> None:
    """Add the frozen tensors that an adapter checkpoint leaves out, in place, from a network.

    Args:
        weights: ``network_weights`` of a checkpoint.
        network: unwrapped; it holds what is missing.
    """
    own = network.state_dict()
    weights.update({name: own[name] for name in frozen_names(network) - weights.keys()})


def checkpoint_of(trainer: "BuiltFromPlans", whole: bool = True) -> dict[str, Any]:
    """Collect the keys that nnU-Net 2.8 reads back, in its own form, and ours under ``vit``.

    With weight averaging the network's weights are the average, which is what predicts; the
    weights that train lie under ``vit`` then.

    Args:
        trainer: with a network.
        whole: ``False`` leaves out what the weight file can restore; ``rebuilt_from`` names it.
    """
    network = unwrap(trainer.network)
    finished = trainer.current_epoch + 1
    logged = trainer.logger.get_checkpoint()
    weights = network.state_dict() if whole else trained_state(network)
    average = trainer.average
    return {
        "network_weights": weights if average is None else {**weights, **average.average},
        REBUILT_FROM: None if whole else trainer.plans_manager.plans[PLANS_KEY]["weights"],
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": trainer.grad_scaler and trainer.grad_scaler.state_dict(),
        # nnU-Net demands one value of each per finished epoch; one under way has logged some.
        "logging": {name: values[:finished] for name, values in logged.items()},
        "_best_ema": trainer._best_ema,
        "current_epoch": finished,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": nnUNetTrainer.__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        PLANS_KEY: {
            "began": trainer.began,
            "split": trainer.split,
            # A validation that is ended is done again from its beginning.
            "random_states": trainer.before_validation or random_states(),
            "average": average and average.state(),
            "skipped_steps": trainer.steps.watch.skipped,
            "losses": trainer.steps.losses,
        },
    }


def random_states() -> dict[str, Any]:
    """Return the states of this process's random number generators."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Go on with the random numbers of a checkpoint.

    With nnU-Net's data augmentation in this process (nnUNet_n_proc_DA=0) on a CPU, a resumed run
    then equals one that was not stopped; other worker processes have random states of their own.

    Args:
        states: see `random_states`.
    """
    torch.set_rng_state(states["torch"].cpu())
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def read_safely(file: Path, name: str | None = None, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint of ours, whoever sent it, without running code in it; tensors on the CPU.

    Args:
        file: the checkpoint.
        name: what it is called in messages; ``None`` is its path.
        mapped: read each tensor where it is used, and what is not used not at all.

    Raises:
        UserError: not a checkpoint, or one that holds more than data.
    """
    try:
        with allowed_in_files(_SAFE):
            mmap = mapped and zipfile.is_zipfile(file)  # torch's older format cannot be mapped
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a junk pickle raises whatever its opcodes run into
        reason = reason_of(error)
        raise UserError(f"{name or file} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or "network_weights" not in content:
        raise UserError(f"{name or file} is not an nnU-Net checkpoint: it has no network_weights")
    return content


def write_atomically(content: Any, file: Path) -> None:
    """Save so that a kill during the write leaves the file that was there before.

    Raises:
        OSError: what the disk says, of ``file``.
    """
    with written_whole(file) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError:  # of torch's writer in C++, which does not know why
            _ask_the_disk(unfinished, file)
            raise


def _ask_the_disk(unfinished: Path, file: Path) -> None:
    """Raise the error, if there is one, with which the disk refuses to take more of a file."""
    try:
        with unfinished.open("ab") as more:
            more.write(bytes(2**20))
            more.flush()
            os.fsync(more.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
