"""Fill a backbone from a weight file: completely, or not at all."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vit_backbone.errors import UserError, WeightsError, reason_of, shorten
from vit_backbone.vits.families import likeliest_backbone
from vit_backbone.vits.packed import refuse_packed
from vit_backbone.vits.plain import refuse_wrapped

from .adapt import adapt_tensors
from .checkpoint import Checkpoint, Tensors, as_tensor
from .files import read_checkpoint, sha256_of
from .once import let_go

_BF16_TOLERANCE = 2**-7  # official files hold RoPE's periods as computed in bfloat16


@dataclass(frozen=True)
class LoadReport:
    """What was loaded: from where, in which layout, how many tensors, and what was changed."""

    file: Path
    layout: str
    tensors: int
    notes: tuple[str, ...]
    sha256: str
    licence: str | None

    def line(self) -> str:
        """Say it in one line."""
        notes = "".join(f", {note}" for note in self.notes)
        licence = f", {self.licence} if it is the original release" if self.licence else ""
        return (
            f"loaded {self.tensors} of {self.tensors} tensors in {self.layout} layout from "
            f"{self.file}{notes}, sha256 {self.sha256}{licence}"
        )


def load_weights(
    backbone: nn.Module, file: str | Path, checkpoint: Checkpoint | None = None
) -> LoadReport:
    """Fill every tensor of a backbone from a file; a backbone that carries LoRA is filled too.

    The layout is read off the file's keys (`layouts`). Nothing is changed unless everything fits.
    Values alone are taken: how DINOv2 resamples its position embedding, MedDINOv3's epsilon and
    which channels were trained are decided where a backbone is built (`create_backbone`, with the
    file as ``checkpoint_path``).

    Args:
        backbone: a timm ViT; adapters are left alone, the layers under them are filled. Only
            DoRA's magnitudes follow the weights, as long as nothing was trained.
        file: a weight file or a Hugging Face folder.
        checkpoint: the file's content where it has been read already.

    Raises:
        UserError: the backbone is packed (`pack_linears`) or on the meta device, or it is a model
            or wrapper that holds the backbone.
        WeightsError: the file is unreadable, fills only a part, holds what the backbone lacks or
            values beyond its range, or is for another rotary position embedding.
    """
    refuse_wrapped(backbone)
    refuse_packed(backbone)
    target = _base_tensors(backbone)
    if any(tensor.is_meta for tensor in target.values()):
        raise UserError(
            "the backbone is on the meta device, which holds no values; build it on another one, "
            "or call to_empty(device=...) before it is filled"
        )
    file = Path(os.path.expanduser(file))  # as `find_weights` does
    checkpoint = checkpoint or read_checkpoint(file)
    try:
        found, changes = adapt_tensors(checkpoint, backbone, target)
    except (ValueError, RuntimeError) as error:  # torch's, of shapes that no backbone has
        raise WeightsError(f"{file} does not fit: {reason_of(error)}") from error
    _refuse_partial(found, target, checkpoint, file, backbone)
    _refuse_other_periods(checkpoint, backbone, file)
    _refuse_overflow(found, target, file)
    notes = [f"{checkpoint.dropped} others left out"] if checkpoint.dropped else []
    sha256 = sha256_of(file)
    untrained = _untrained_magnitudes(backbone)
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(as_tensor(found[name]))
        for magnitude, layer in untrained:
            magnitude.copy_(layer.weight.norm(dim=1))
    let_go()
    return LoadReport(
        file,
        checkpoint.layout,
        len(target),
        (*notes, *checkpoint.notes, *changes),
        sha256,
        checkpoint.licence,
    )


def _base_tensors(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Name the backbone's own tensors as they are called without adapters."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" not in name
    }


def _untrained_magnitudes(backbone: nn.Module) -> list[tuple[torch.Tensor, Any]]:
    """List DoRA's magnitudes as it begins with them, each with the layer whose norms they are."""
    untrained = []
    modules: list[Any] = list(backbone.modules())  # peft, whose layers they may be, is an extra
    for module in modules:
        for adapter, dora in getattr(module, "lora_magnitude_vector", {}).items():
            layer = module.get_base_layer()
            norms = layer.weight.norm(dim=1).float()
            # The tolerance is for rounding alone: a few careful steps change little more. Both
            # are NaN where the backbone was left unfilled.
            if not module.lora_B[adapter].weight.any() and torch.allclose(
                dora.weight.to(norms), norms, rtol=1e-5, equal_nan=True
            ):
                untrained.append((dora.weight, layer))
    return untrained


def _refuse_other_periods(checkpoint: Checkpoint, backbone: nn.Module, file: Path) -> None:
    """Refuse another RoPE: its periods are no weights, so nothing else would tell."""
    if checkpoint.periods is None:
        return
    theirs = checkpoint.periods.float()
    ours = getattr(getattr(backbone, "rope", None), "periods", None)
    if ours is None:
        said = "this backbone has no such RoPE"
    elif theirs.shape != ours.shape:
        said = f"it has {theirs.numel()}, this backbone {ours.numel()}"
    elif not torch.allclose(theirs, ours.float().cpu(), rtol=_BF16_TOLERANCE, atol=0):
        said = f"its last is {theirs[-1]:.4g}, this backbone's {ours[-1]:.4g}"
    else:
        return
    raise WeightsError(
        f"{file} is for other RoPE periods: {said}; name the backbone that the file is for"
    )


def _refuse_overflow(found: Tensors, target: dict[str, torch.Tensor], file: Path) -> None:
    for name, tensor in target.items():
        value, dtype = as_tensor(found[name]), tensor.dtype
        narrower = torch.finfo(dtype).max < torch.finfo(value.dtype).max
        if narrower and not value.to(dtype).isfinite().all():
            raise WeightsError(
                f"{file}: {shorten(name, 60)} holds values beyond the range of "
                f"{str(dtype).removeprefix('torch.')}, this backbone's type; keep it in float32"
            )


def _refuse_partial(
    found: Tensors,
    target: dict[str, torch.Tensor],
    checkpoint: Checkpoint,
    file: Path,
    backbone: nn.Module,
) -> None:
    missing = [key for key in target if key not in found]
    unexpected = [key for key in found if key not in target]
    misshapen = [key for key in target if key in found and found[key].shape != target[key].shape]
    if not missing and not unexpected and not misshapen:
        return
    if any(".lora_" in key or ".base_layer." in key for key in unexpected):
        raise WeightsError(
            f"{file} holds LoRA adapters, which a weight file cannot bring along; save the "
            "backbone after disable_lora(backbone), which merges them"
        )
    filled = len(target) - len(missing) - len(misshapen)
    parts = [
        f"{file} is {checkpoint.describe()} and does not fit the backbone asked for: it fills "
        f"{filled} of {len(target)} tensors"
    ]
    if missing:
        parts.append(f"{len(missing)} are missing (first {shorten(missing[0], 60)})")
    if unexpected:
        parts.append(f"{len(unexpected)} are unexpected (first {shorten(unexpected[0], 60)})")
    if misshapen:
        key = misshapen[0]
        parts.append(
            f"{len(misshapen)} differ in shape (first {key}: file {tuple(found[key].shape)}, "
            f"backbone {tuple(target[key].shape)})"
        )
    parts.append(_remedy(found, checkpoint, backbone))
    raise WeightsError("; ".join(parts))


def _remedy(found: Tensors, checkpoint: Checkpoint, backbone: nn.Module) -> str:
    config = getattr(backbone, "pretrained_cfg", None) or {}
    if likely := likeliest_backbone(checkpoint, config.get("architecture")):
        return f"the file fits {likely}"
    first, *others = {name.partition(".")[0] for name in found}
    if not others and first != "blocks":
        return f"all its names begin with {shorten(first, 60)!r}: save the state dict of that alone"
    return "name the backbone that it is for"
