"""Bring a weight file's tensors to a model's names and shapes, in float32."""

import re
import sys
from types import FunctionType

import torch
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import nn

from vit_backbone.errors import shorten
from vit_backbone.vits.plain import plain_vit
from vit_backbone.vits.pos_embed import resample_position_embedding

from .checkpoint import Checkpoint, Joined, Tensors, as_tensor, tensor_of
from .recognition import DROPPABLE, rename_tensors

_PATCH_WEIGHT = "patch_embed.proj.weight"


def adapt_tensors(
    checkpoint: Checkpoint, backbone: nn.Module, target: dict[str, torch.Tensor]
) -> tuple[Tensors, list[str]]:
    """Bring the one naming of `layouts` to the names of a model's class, and resample on purpose.

    Whether the result fits is for the caller to see.

    Args:
        checkpoint: what the file holds.
        backbone: the model.
        target: the model's own tensors by name, without adapters.

    Returns:
        The tensors, and what was changed in them.

    Raises:
        ValueError: two tensors that mean the same, biases that the model cannot hold, or a number
            of channels that cannot be adapted.
    """
    found, notes = dict(checkpoint.tensors), []
    if "blocks.0.gamma_1" in target:
        found = rename_tensors(found, lambda n: re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", n))
    found = _name_gated_mlp(found, "blocks.0.mlp.fc1_g.weight" in target)
    found = _fold_prefix_position(found, target)
    found = _fit_qkv_bias(found, target, backbone)
    if "blocks.0.attn.q_proj.weight" in target:
        found = _part_qkv(found, target)
    if checkpoint.layout in ("timm", "unknown") and not target.keys() <= found.keys():
        whole = {name: as_tensor(value) for name, value in found.items()}
        converted = _rename_by_timm(whole, backbone)
        notes += ["renamed by timm"] if converted.keys() != found.keys() else []
        lost = len(found) - len(converted)
        notes += [f"{lost} that timm leaves out"] if lost > 0 else []
        found = dict(converted)
    # Pooling of the whole image, of which a dense backbone has none.
    found = {n: v for n, v in found.items() if n in target or not n.startswith("attn_pool.")}
    notes += _fit_patch_embedding(found, target, backbone)
    notes += _fit_position_embedding(found, target, backbone)
    return found, notes


def _rename_by_timm(found: dict[str, torch.Tensor], backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Rename what only timm's own converter knows, which is kept beside the model's class.

    It also resamples to the model's patch and grid, without a word: that is not its affair here.
    """
    modules = (sys.modules[kind.__module__] for kind in type(backbone).__mro__)
    convert = next(
        (m.checkpoint_filter_fn for m in modules if hasattr(m, "checkpoint_filter_fn")), None
    )
    if convert is None:
        return found
    instead = {
        "resample_patch_embed": lambda weight, *_, **__: weight,
        "resample_abs_pos_embed": lambda embedding, *_, **__: embedding,
        "print": lambda *_, **__: None,
    }
    renaming = FunctionType(
        convert.__code__, convert.__globals__ | instead, argdefs=convert.__defaults__
    )
    try:
        converted = renaming(dict(found), backbone)
        backwards = renaming(dict(reversed(found.items())), backbone)
    except Exception:  # a stranger's tensors: the gate will name what is missing
        return found
    for name, value in converted.items():  # of two that get one name, timm keeps the last
        if value is not backwards[name] and not torch.equal(value, backwards[name]):
            raise ValueError(
                f"two tensors that are {shorten(name, 60)}; keep the one that is meant"
            )
    return {name: value for name, value in converted.items() if not DROPPABLE.match(name)}


def _name_gated_mlp(found: Tensors, apart: bool) -> Tensors:
    """Name a gated MLP's gate and value apart (EVA's class) or packed in one (the plain ViT's)."""
    packed = dict(found)
    for name in found:
        gate = re.fullmatch(r"(blocks\.\d+\.mlp\.)w1\.(weight|bias)", name)
        if apart or gate is None or (value := f"{gate[1]}w2.{gate[2]}") not in found:
            continue
        if (both := f"{gate[1]}w12.{gate[2]}") in found:
            raise ValueError(f"both {both} and its parts w1 and w2; keep what is meant")
        packed[both] = torch.cat([as_tensor(packed.pop(n)) for n in (name, value)])
    names = {"w3": "fc2"} | ({"w1": "fc1_g", "w2": "fc1_x"} if apart else {"w12": "fc1"})
    part = re.compile(rf"(?<=\.mlp\.)({'|'.join(names)})(?=\.)")
    return rename_tensors(packed, lambda name: part.sub(lambda match: names[match[1]], name))


def _fold_prefix_position(found: Tensors, target: dict[str, torch.Tensor]) -> Tensors:
    """Add CLS's position embedding to CLS where the model (reg4) has positions for patches only."""
    have, want = tensor_of(found, "pos_embed"), target.get("pos_embed")
    token = tensor_of(found, "cls_token")
    if have is None or want is None or "reg_token" not in target or token is None:
        return found
    if round(want.shape[1] ** 0.5) ** 2 != want.shape[1]:
        return found
    if round((have.shape[1] - 1) ** 0.5) ** 2 != have.shape[1] - 1:
        return found
    token = token.float() + have[:, :1].float()
    return found | {"cls_token": token, "pos_embed": have[:, 1:]}


def _fit_qkv_bias(found: Tensors, target: dict[str, torch.Tensor], backbone: nn.Module) -> Tensors:
    """Give EVA's class its q and v biases; where it has none, drop them if they are zero.

    DINOv3 masks k's bias, so that part is never used.
    """
    weight = "blocks.0.attn.qkv.weight"
    same_shape = (
        weight in found and weight in target and found[weight].shape == target[weight].shape
    )
    if "blocks.0.attn.qkv.bias" in target or not same_shape:
        return found
    apart: Tensors = {}
    for name, value in found.items():
        if name.endswith(".attn.qkv.bias"):
            q, _, v = as_tensor(value).chunk(3)
            parts = {name.replace("qkv.bias", "q_bias"): q, name.replace("qkv.bias", "v_bias"): v}
            if both := next((part for part in parts if part in found), None):
                raise ValueError(f"both {name} and its part {both}; keep what is meant")
            apart |= parts
        else:
            apart[name] = value
    if "blocks.0.attn.q_bias" in target:
        return apart
    biases = {name for name in apart if name.endswith((".attn.q_bias", ".attn.v_bias"))}
    if name := next((n for n in apart if n in biases and as_tensor(apart[n]).any()), None):
        raise ValueError(
            f"qkv biases that are not zero ({name}), which this model cannot hold; "
            f"name the backbone {plain_vit(backbone).pretrained_cfg['architecture']}_qkvb"
        )
    return {name: value for name, value in apart.items() if name not in biases}


def _part_qkv(found: Tensors, target: dict[str, torch.Tensor]) -> Tensors:
    """Part qkv into q, k and v, as larger EVA02s keep them, of which k has no bias."""
    apart: Tensors = {}
    without_k = "blocks.0.attn.k_proj.bias" not in target
    for name, value in found.items():
        joined = re.fullmatch(r"(blocks\.\d+\.attn\.)qkv\.(weight|bias)", name)
        if joined is None:
            apart[name] = value
            continue
        stem, kind = joined.groups()
        parts = value.parts if isinstance(value, Joined) else value.tensor_split(3)
        for letter, part in zip("qkv", parts, strict=True):
            if (letter, kind) != ("k", "bias") or not without_k:
                apart[f"{stem}{letter}_proj.{kind}"] = part
            elif part.any():
                raise ValueError(f"{name} has a bias of k, which this model cannot hold")
    return apart


def _fit_patch_embedding(
    found: Tensors, target: dict[str, torch.Tensor], backbone: nn.Module
) -> list[str]:
    """Adapt channels, and resample where the model was built with another patch size on purpose."""
    weight, want = tensor_of(found, _PATCH_WEIGHT), target[_PATCH_WEIGHT]
    if weight is None or weight.ndim != 4:
        return []
    notes = []
    trained = getattr(backbone, "trained_patch_size", want.shape[-1])
    if weight.shape[-2:] == (trained, trained) != want.shape[-2:]:
        weight = resample_patch_embed(weight.float(), list(want.shape[-2:]))
        notes.append(f"patch embedding resampled from {trained} to {want.shape[-1]} px")
    have_channels, channels = weight.shape[1], want.shape[1]
    if have_channels != channels:
        if have_channels != 3:
            raise ValueError(
                f"its patch embedding takes {have_channels} channels, the model {channels}; "
                "only three-channel weights can be adapted"
            )
        weight = adapt_input_conv(channels, weight.float())  # timm rounds to the dtype that came
        notes.append(f"patch embedding adapted from {have_channels} to {channels} channels")
    found[_PATCH_WEIGHT] = weight
    return notes


def _fit_position_embedding(
    found: Tensors, target: dict[str, torch.Tensor], backbone: nn.Module
) -> list[str]:
    have, want = tensor_of(found, "pos_embed"), target.get("pos_embed")
    if have is None or want is None or have.ndim != 3 or have.shape[2] != want.shape[2]:
        return []
    grid = plain_vit(backbone).patch_embed.grid_size
    if have.shape[1] == want.shape[1]:  # on which grid they lie, no file says
        taken = f"position embedding taken for {grid[0]}x{grid[1]}"
        return [] if grid[0] == grid[1] else [taken]
    prefix = want.shape[1] - grid[0] * grid[1]
    side = round(max(0, have.shape[1] - prefix) ** 0.5)
    if not side or side**2 != have.shape[1] - prefix:
        return []  # not square: the gate will name the shapes
    old = (side, side)
    how = getattr(backbone, "pos_embed_resampling", None)
    found["pos_embed"] = resample_position_embedding(have.float(), grid, old, prefix, how)
    return [f"position embedding resampled from {side}x{side} to {grid[0]}x{grid[1]}"]
