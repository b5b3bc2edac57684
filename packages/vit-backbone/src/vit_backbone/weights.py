"""Fill a backbone from a weight file: completely, or not at all."""

import contextlib
import io
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import adapt_input_conv
from torch import nn

from .errors import WeightsError
from .families import likeliest_backbone
from .layouts import Checkpoint, Tensors
from .weight_files import read_checkpoint, sha256_of

_PATCH_WEIGHT = "patch_embed.proj.weight"


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
        licence = f", licence {self.licence}" if self.licence else ""
        return (
            f"loaded {self.tensors} of {self.tensors} tensors in {self.layout} layout from "
            f"{self.file}{notes}, sha256 {self.sha256}{licence}"
        )


def load_weights(
    backbone: nn.Module, file: str | Path, checkpoint: Checkpoint | None = None
) -> LoadReport:
    """Fill every tensor of a backbone from a file; a backbone that carries LoRA is filled too.

    The layout is read off the file's keys (`layouts`). Nothing is changed unless everything fits.

    Args:
        backbone: a timm ViT; adapters are left alone, the layers under them are filled.
        file: a weight file or a Hugging Face folder.
        checkpoint: the file's content where it has been read already.

    Raises:
        WeightsError: the file is unreadable, fills only a part, or holds what the backbone lacks.
    """
    file = Path(file)
    checkpoint = checkpoint or read_checkpoint(file)
    target = _base_tensors(backbone)
    found = _name_as(target, checkpoint, backbone, file)
    notes = [f"{checkpoint.dropped} others left out"] if checkpoint.dropped else []
    notes += _fit_patch_embedding(found, target, backbone, file)
    notes += _fit_position_embedding(found, target, backbone)
    _refuse_partial(found, target, checkpoint, file)
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(found[name])
        _reset_magnitudes(backbone)
    return LoadReport(
        file, checkpoint.layout, len(target), tuple(notes), sha256_of(file), checkpoint.licence
    )


def _base_tensors(backbone: nn.Module) -> Tensors:
    """Name the backbone's own tensors as they are called without adapters."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" not in name
    }


def _reset_magnitudes(backbone: nn.Module) -> None:
    """Give DoRA the magnitudes of the filled weights; it took those of the random ones before."""
    for module in backbone.modules():
        for adapter, dora in getattr(module, "lora_magnitude_vector", {}).items():
            update = module.lora_B[adapter].weight @ module.lora_A[adapter].weight
            weight = module.get_base_layer().weight + module.scaling[adapter] * update
            dora.weight.copy_(weight.norm(dim=1))


def _name_as(target: Tensors, checkpoint: Checkpoint, backbone: nn.Module, file: Path) -> Tensors:
    """Bring the one naming of `layouts` to the names of this model's class."""
    found = dict(checkpoint.tensors)
    if "blocks.0.gamma_1" in target:
        found = {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", n): v for n, v in found.items()}
    found = _name_gated_mlp(found, "blocks.0.mlp.fc1_g.weight" in target)
    found = _fold_prefix_position(found, target)
    found = _split_qkv_bias(found, target, backbone, file)
    if checkpoint.layout == "timm" and not target.keys() <= found.keys():
        # Other authors' layouts that timm knows a filter for, kept beside the model's class.
        convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            with contextlib.redirect_stdout(io.StringIO()):  # timm prints on the way
                found = convert(found, backbone)
    return found


def _name_gated_mlp(found: Tensors, apart: bool) -> Tensors:
    """Name a gated MLP's gate and value apart (EVA's class) or packed in one (the plain ViT's)."""
    named: Tensors = {}
    for name, value in found.items():
        match = re.fullmatch(r"(blocks\.\d+\.mlp)\.(w1|w2|w3|w12)\.(weight|bias)", name)
        if match is None:
            named[name] = value
        elif match[2] == "w3":
            named[f"{match[1]}.fc2.{match[3]}"] = value
        elif apart:
            named[f"{match[1]}.{dict(w1='fc1_g', w2='fc1_x')[match[2]]}.{match[3]}"] = value
        elif match[2] == "w12":
            named[f"{match[1]}.fc1.{match[3]}"] = value
        elif match[2] == "w1" and (other := name.replace(".w1.", ".w2.")) in found:
            named[f"{match[1]}.fc1.{match[3]}"] = torch.cat([value, found[other]])
    return named


def _fold_prefix_position(found: Tensors, target: Tensors) -> Tensors:
    """Add CLS's position embedding to CLS where the model (reg4) has positions for patches only."""
    have, want = found.get("pos_embed"), target.get("pos_embed")
    if have is None or want is None or "reg_token" not in target or "cls_token" not in found:
        return found
    if round(want.shape[1] ** 0.5) ** 2 != want.shape[1]:
        return found
    if round((have.shape[1] - 1) ** 0.5) ** 2 != have.shape[1] - 1:
        return found
    return found | {"cls_token": found["cls_token"] + have[:, :1], "pos_embed": have[:, 1:]}


def _split_qkv_bias(found: Tensors, target: Tensors, backbone: nn.Module, file: Path) -> Tensors:
    """Give EVA's class its q and v biases; where it has none, drop them if they are zero.

    DINOv3 masks k's bias, so that part is never used.
    """
    weight = "blocks.0.attn.qkv.weight"
    same_shape = weight in found and found[weight].shape == target[weight].shape
    if "blocks.0.attn.qkv.bias" in target or not same_shape:
        return found
    biases = {name for name in found if name.endswith(".attn.qkv.bias")}
    split = {name: value for name, value in found.items() if name not in biases}
    for name in biases:
        q, _, v = found[name].chunk(3)
        if "blocks.0.attn.q_bias" in target:
            stem = name.removesuffix("qkv.bias")
            split |= {f"{stem}q_bias": q, f"{stem}v_bias": v}
        elif q.count_nonzero() or v.count_nonzero():
            raise WeightsError(
                f"{file} has qkv biases that are not zero ({name}), which this model cannot hold; "
                f"name the backbone {backbone.pretrained_cfg['architecture']}_qkvb"
            )
    return split


def _fit_patch_embedding(
    found: Tensors, target: Tensors, backbone: nn.Module, file: Path
) -> list[str]:
    """Adapt channels, and resample where the model was built with another patch size on purpose."""
    weight, want = found.get(_PATCH_WEIGHT), target[_PATCH_WEIGHT]
    if weight is None or weight.ndim != 4:
        return []
    notes = []
    trained = getattr(backbone, "trained_patch_size", want.shape[-1])
    if weight.shape[-1] == trained != want.shape[-1]:
        weight = resample_patch_embed(weight.float(), list(want.shape[-2:]))
        notes.append(f"patch embedding resampled from {trained} to {want.shape[-1]} px")
    have_channels, channels = weight.shape[1], want.shape[1]
    if have_channels != channels:
        if have_channels != 3:
            raise WeightsError(
                f"{file}: its patch embedding takes {have_channels} channels, the model "
                f"{channels}; only three-channel weights can be adapted"
            )
        weight = adapt_input_conv(channels, weight)
        notes.append(f"patch embedding adapted from {have_channels} to {channels} channels")
    found[_PATCH_WEIGHT] = weight
    return notes


def _fit_position_embedding(found: Tensors, target: Tensors, backbone: nn.Module) -> list[str]:
    have, want = found.get("pos_embed"), target.get("pos_embed")
    if have is None or want is None or have.ndim != 3 or have.shape[2] != want.shape[2]:
        return []
    if have.shape[1] == want.shape[1]:
        return []
    grid = backbone.patch_embed.grid_size
    prefix = want.shape[1] - grid[0] * grid[1]
    side = round((have.shape[1] - prefix) ** 0.5)
    if side**2 != have.shape[1] - prefix:
        return []  # not square: the gate will name the shapes
    found["pos_embed"] = resample_abs_pos_embed(
        have.float(), list(grid), old_size=[side, side], num_prefix_tokens=prefix
    )
    return [f"position embedding resampled from {side}x{side} to {grid[0]}x{grid[1]}"]


def _refuse_partial(
    found: Tensors, target: Mapping[str, torch.Tensor], checkpoint: Checkpoint, file: Path
) -> None:
    missing = [key for key in target if key not in found]
    unexpected = [key for key in found if key not in target]
    misshapen = [key for key in target if key in found and found[key].shape != target[key].shape]
    if not missing and not unexpected and not misshapen:
        return
    filled = len(target) - len(missing) - len(misshapen)
    parts = [
        f"{file} is {checkpoint.describe()} and does not fit the backbone asked for: it fills "
        f"{filled} of {len(target)} tensors"
    ]
    if missing:
        parts.append(f"{len(missing)} are missing (first {missing[0]})")
    if unexpected:
        parts.append(f"{len(unexpected)} are unexpected (first {unexpected[0]})")
    if misshapen:
        key = misshapen[0]
        parts.append(
            f"{len(misshapen)} differ in shape (first {key}: file {tuple(found[key].shape)}, "
            f"backbone {tuple(target[key].shape)})"
        )
    likely = likeliest_backbone(checkpoint)
    parts.append(f"the file fits {likely}" if likely else "name the backbone that it is for")
    raise WeightsError("; ".join(parts))
