"""Recognise a weight file's layout by its keys, and bring its tensors to one naming.

`weights` fits it to the model at hand. Nothing is taken from the file's name.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from vit_backbone.errors import shorten

from .checkpoint import Checkpoint, Joined, Tensors, as_tensor
from .layouts import LAYOUTS, Read

Value = TypeVar("Value", bound=torch.Tensor | Joined)

# Pretraining and classification parts that files of the zoo carry beside a backbone.
DROPPABLE = re.compile(
    r"mask_token$|masked_embed$|decoder_|dino_head\.|ibot_head\.|head\.|head_dist\.|classifier\."
    r"|fc_norm\.|local_cls_norm\.|rope_embed\.periods$|rope_embeddings\.|.*\.attn\.qkv\.bias_mask$"
    r"|(.*\.)?rope\.freqs_(cos|sin)$"
)
# A class token and a position embedding; some authors keep them without the batch dimension.
_TOKENS = ("cls_token", "pos_embed")
# The first with tensors in it is taken. The teacher is the model that DINO-like trainings keep;
# averaged weights come last, as they did when plans began to record what was loaded.
_CONTAINERS = ("teacher", "model", "state_dict", "model_ema", "state_dict_ema", "ema")
_DEEPEST = 4
_PREFIXES = re.compile(
    r"(?:(?:_orig_mod|module|backbone|model|dinov2|dinov2_with_registers|dinov3_vit)\.)+"
)


def recognise(content: Mapping[str, object]) -> Checkpoint:
    """Unwrap a file's content, recognise its layout, and bring its tensors to the one naming.

    Args:
        content: what the file holds: tensors by name, perhaps inside of a container.

    Raises:
        ValueError: no tensors, or two under names that mean the same.
    """
    notes, tensors = _unwrap(content)
    if not tensors:
        keys = ", ".join(sorted(shorten(str(key), 60) for key in content)[:3])
        raise ValueError(
            f"no tensors (keys: {keys}), of its own or under {', '.join(_CONTAINERS)}; save the "
            "backbone's state_dict() alone"
        )
    tensors = _strip_prefixes(tensors)
    layout = next(layout for layout in LAYOUTS if layout.matches(tensors))
    inside = {name: v for name, v in tensors.items() if name.startswith(layout.tower)}
    apart = rename_tensors(inside, lambda name: _rename(name[len(layout.tower) :], layout.renames))
    renamed = _fuse_qkv(apart)
    if "norm.weight" not in renamed:  # a classifier on mean tokens norms after the pooling
        renamed = rename_tensors(renamed, lambda name: re.sub(r"^fc_norm\.", "norm.", name))
    kept = {
        name: _with_batch(as_tensor(value)) if name in _TOKENS else value
        for name, value in renamed.items()
        if not DROPPABLE.match(name) and not _is_counter(value)
    }
    dropped = len(renamed) - len(kept) + len(tensors) - len(inside)
    notes += [layout.note] if layout.note else []
    return Checkpoint(
        layout.name, kept, dropped, layout.licence, _find_periods(apart), tuple(notes)
    )


def _is_counter(value: torch.Tensor | Joined) -> bool:
    """Say whether it is one whole number, as trainings count in and no backbone has."""
    if isinstance(value, Joined) or value.ndim:
        return False
    return not value.is_floating_point() and not value.is_complex()


def _with_batch(token: torch.Tensor) -> torch.Tensor:
    return token[(None,) * (3 - token.ndim)]


def rename_tensors(tensors: dict[str, Value], rename: Callable[[str], str]) -> dict[str, Value]:
    """Rename tensors.

    Raises:
        ValueError: two of them get one name: one would overwrite the other.
    """
    old_names: dict[str, str] = {}
    for name in tensors:
        other = old_names.setdefault(rename(name), name)
        if other != name:
            raise ValueError(
                f"both {shorten(other, 60)} and {shorten(name, 60)}, which are one tensor of a "
                "backbone; keep the one that is meant"
            )
    return {new: tensors[old] for new, old in old_names.items()}


def _unwrap(content: Mapping[str, object], levels: int = _DEEPEST) -> tuple[list[str], Read]:
    """Find the tensors, and say which container was chosen where there was a choice."""
    own = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    found = {}
    for key in _CONTAINERS if levels else ():
        if isinstance(inner := content.get(key), Mapping):
            notes, tensors = _unwrap(inner, levels - 1)
            if tensors:
                found[key] = notes, tensors
    if not found:
        return [], own
    chosen, *others = found
    notes, tensors = found[chosen]
    if len(own) >= len(tensors):  # a model with its average beside it, not a counter or the like
        return [f"its own tensors, not its {key}" for key in found], own
    return notes + [f"its {chosen}, not its {other}" for other in others], tensors


def _strip_prefixes(tensors: Read) -> Read:
    """Strip the wrappers' prefixes, in any order; what lies beside the backbone keeps its name."""
    return rename_tensors(
        tensors, lambda name: name[match.end() :] if (match := _PREFIXES.match(name)) else name
    )


def _find_periods(tensors: Read) -> torch.Tensor | None:
    """Return the periods of DINOv3's RoPE; Hugging Face keeps what divides one by them."""
    if "rope_embeddings.inv_freq" in tensors:
        return 1 / tensors["rope_embeddings.inv_freq"].float()
    return tensors.get("rope_embed.periods")


def _rename(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _fuse_qkv(tensors: Read) -> Tensors:
    """Join q, k and v into qkv; where no block has a bias of k, as in DINOv3, it is zero."""
    parts_of = re.compile(r"(blocks\.\d+\.attn\.)[qkv]_proj\.(weight|bias)$")
    fused: Tensors = {n: value for n, value in tensors.items() if not parts_of.match(n)}
    matches = (parts_of.match(name) for name in tensors)
    needed = "qkv" if any(name.endswith(".attn.k_proj.bias") for name in tensors) else "qv"
    for stem, kind in dict.fromkeys(match.groups() for match in matches if match):
        parts = [tensors.get(f"{stem}{part}_proj.{kind}") for part in "qkv"]
        there = [part for part in parts if part is not None]
        joined = f"{stem}qkv.{kind}"
        if joined in tensors:
            raise ValueError(f"both {joined} and its parts q, k and v; keep what is meant")
        if len({part.shape for part in there}) > 1:
            raise ValueError(f"q, k and v of different shapes ({stem}q_proj.{kind} and its like)")
        wanted = needed if kind == "bias" else "qkv"
        if any(tensors.get(f"{stem}{part}_proj.{kind}") is None for part in wanted):
            continue  # the gate will name the missing tensor of qkv
        if kind == "weight" and there[0].ndim == 2:
            fused[joined] = Joined(tuple(there))
            continue
        zeros = torch.zeros_like(there[0])
        fused[joined] = torch.cat([zeros if part is None else part for part in parts])
    gated = any(".mlp.gate_proj." in name for name in fused)
    names = {"gate_proj": "w1", "up_proj": "w2" if gated else "fc1"}
    names["down_proj"] = "w3" if gated else "fc2"
    return rename_tensors(
        fused,
        lambda name: re.sub(
            r"\.mlp\.(gate_proj|up_proj|down_proj)\.", lambda m: f".mlp.{names[m[1]]}.", name
        ),
    )
