"""Read a stranger's checkpoint: data only, of the form that stock prediction reads."""

import zipfile
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_vit_trainer.checkpoints.content import REBUILT_FROM, read_safely
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import UserError, quoted, reason_of
from vit_backbone.weights.pickles import check_torch_zip

from .plain_data import is_plain_tensor, plain_copy

# Of `checkpoint_of`; other keys are not installed.
_KEPT = (
    "network_weights",
    REBUILT_FROM,
    "optimizer_state",
    "grad_scaler_state",
    "logging",
    "_best_ema",
    "current_epoch",
    "init_args",
    "trainer_name",
    "inference_allowed_mirroring_axes",
    PLANS_KEY,
)


def read_foreign_checkpoint(file: Path, configuration: str, source: str) -> dict[str, Any]:
    """Read a checkpoint and check what nnU-Net reads of it.

    Args:
        file: the checkpoint.
        configuration: of its plans.
        source: what the file is called, for messages.

    Returns:
        The known keys alone.

    Raises:
        UserError: unreadable, with code in it, or of another form.
    """
    _check_records(file, source)
    content = plain_copy(read_safely(file, source), file.stat().st_size, source)
    check_form(content, source)
    named = content["init_args"].get("configuration")
    if not isinstance(named, str) or named != configuration:
        raise UserError(f"{source}: its init_args are not those of configuration {configuration!r}")
    # nnU-Net looks this name up, and calls build_network_architecture of what it finds.
    trainer = content.get("trainer_name")
    if not isinstance(trainer, str) or trainer != nnUNetTrainer.__name__:
        raise UserError(
            f"{source} names the trainer {quoted(trainer)}, ours name {nnUNetTrainer.__name__!r}"
        )
    if not isinstance(content.get(REBUILT_FROM), dict | None):
        raise UserError(f"{source}: its {REBUILT_FROM} names no weight file")
    axes = content.get("inference_allowed_mirroring_axes")
    if axes is not None and not (
        isinstance(axes, list | tuple) and all(type(a) is int and a in (0, 1) for a in axes)
    ):
        raise UserError(
            f"{source}: inference_allowed_mirroring_axes {quoted(axes)} are not 0 and 1"
        )
    return {name: content[name] for name in _KEPT if name in content}


def _check_records(file: Path, source: str) -> None:
    """Refuse what torch would unpack, read twice or build into more than the file is large."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = check_torch_zip(archive, file.stat().st_size)
    except Exception as error:  # a stranger's bytes fail in any way
        raise UserError(f"{source} cannot be read as a checkpoint: {reason_of(error)}") from error
    if damaged is not None:
        raise UserError(f"{source} is damaged (in {quoted(damaged)})")


def check_form(content: dict[str, Any], source: str) -> None:
    """Refuse a checkpoint whose weights are no named tensors, or that lacks its ``init_args``.

    Args:
        content: see `checkpoints.read_safely`.
        source: what it is from, for messages.

    Raises:
        UserError: see above.
    """
    weights = content["network_weights"]
    if not isinstance(weights, dict) or not all(map(_is_plain_weight, weights.items())):
        raise UserError(f"{source}: its network_weights are no names with plain tensors")
    if not isinstance(content.get("init_args"), dict):
        raise UserError(f"{source} is not an nnU-Net checkpoint: it has no init_args")


def check_fits(
    weights: dict[str, torch.Tensor],
    network: nn.Module,
    source: str,
    left_out: Set[str] = frozenset(),
) -> None:
    """Refuse weights that a network of these plans could not load.

    Args:
        weights: by name.
        network: on any device, the meta device too.
        source: what they are from, for messages.
        left_out: names that may be missing.

    Raises:
        UserError: a tensor that is missing, not known, or of another shape.
    """
    own = network.state_dict()
    for problem, names in (
        ("lacks", own.keys() - weights.keys() - left_out),
        ("has besides", weights.keys() - own.keys()),
        (
            "has in another shape",
            {n for n in own.keys() & weights if own[n].shape != weights[n].shape},
        ),
    ):
        if names:
            named = ", ".join(quoted(name) for name in sorted(names)[:3])
            raise UserError(
                f"{source} does not fit its plans: it {problem} {named}"
                + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            )


def _is_plain_weight(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and is_plain_tensor(item[1])
