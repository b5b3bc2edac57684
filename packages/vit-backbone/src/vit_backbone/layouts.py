"""Recognise a weight file's layout by its keys, and bring its tensors to one naming.

The one naming is DINO's and timm's plain ViT's (``blocks.N.attn.qkv.weight``,
``blocks.N.ls1.gamma``, ``reg_token``); `weights` fits it to the model at hand. Nothing is taken
from the file's name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Tensors = dict[str, torch.Tensor]

# Pretraining and classification parts that files of the zoo carry beside a backbone.
DROPPABLE = re.compile(
    r"mask_token$|masked_embed$|decoder_|dino_head\.|ibot_head\.|head\.|head_dist\.|classifier\."
    r"|fc_norm\.|local_cls_norm\.|rope_embed\.periods$|rope_embeddings\.|.*\.attn\.qkv\.bias_mask$"
)
# The teacher is the model that DINO-like trainings keep; MAE files have one model.
_CONTAINERS = ("teacher", "model", "state_dict", "model_ema")
_PREFIXES = ("module.", "backbone.", "dinov2.", "dinov3_vit.", "model.")


@dataclass(frozen=True)
class Checkpoint:
    """A backbone's tensors as a file holds them, under the one naming.

    Attributes:
        layout: what the file is, for messages.
        tensors: the backbone's tensors.
        dropped: how many pretraining or classification tensors were left out.
        licence: of the family's weights, where known.
    """

    layout: str
    tensors: Tensors
    dropped: int
    licence: str | None

    @property
    def depth(self) -> int:
        """Number of blocks."""
        numbers = (re.match(r"blocks\.(\d+)\.", name) for name in self.tensors)
        return len({match[1] for match in numbers if match})

    @property
    def embed_dim(self) -> int | None:
        """Width of a token, read off the patch embedding; ``None`` without one."""
        weight = self.tensors.get("patch_embed.proj.weight")
        return None if weight is None else weight.shape[0]

    @property
    def patch_size(self) -> int | None:
        """Side of a patch in pixels; ``None`` without a patch embedding."""
        weight = self.tensors.get("patch_embed.proj.weight")
        return None if weight is None or weight.ndim != 4 else weight.shape[-1]

    @property
    def in_chans(self) -> int | None:
        """Channels of the images it was trained on; ``None`` without a patch embedding."""
        weight = self.tensors.get("patch_embed.proj.weight")
        return None if weight is None or weight.ndim != 4 else weight.shape[1]

    @property
    def grid(self) -> int | None:
        """Side of the position embedding's grid; ``None`` without one or where it is not square."""
        embedding = self.tensors.get("pos_embed")
        if embedding is None or embedding.ndim != 3:
            return None
        for prefix in (1, 0):
            side = round((embedding.shape[1] - prefix) ** 0.5)
            if side**2 == embedding.shape[1] - prefix:
                return side
        return None

    @property
    def has_qkv_bias(self) -> bool:
        """Whether q or v has a bias that is not zero (k's is masked in DINOv3)."""
        for name, value in self.tensors.items():
            if name.endswith((".attn.q_bias", ".attn.v_bias")) and value.count_nonzero():
                return True
            if name.endswith(".attn.qkv.bias"):
                q, _, v = value.chunk(3)
                if q.count_nonzero() or v.count_nonzero():
                    return True
        return False

    def describe(self) -> str:
        """Say what the file is: ``a ViT-B/16 (12 blocks, 768 wide) in VisionFM layout``."""
        letter = {384: "S", 768: "B", 1024: "L", 1280: "H+", 1536: "g", 4096: "7B"}
        name = f"ViT-{letter.get(self.embed_dim, '?')}/{self.patch_size or '?'}"
        return f"a {name} ({self.depth} blocks, {self.embed_dim} wide) in {self.layout} layout"


@dataclass(frozen=True)
class _Layout:
    name: str
    matches: Callable[[set[str]], bool]
    renames: tuple[tuple[str, str], ...] = ()
    licence: str | None = None


def _has(pattern: str) -> Callable[[set[str]], bool]:
    compiled = re.compile(pattern)
    return lambda keys: any(compiled.search(key) for key in keys)


_HF_EMBEDDINGS = (
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.", ""),
)
_HF_BLOCKS = (
    (r"^(?:encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)
_DINOV2 = ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."), (r"^register_tokens$", "reg_token"))
_DINOV3 = ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."), (r"^storage_tokens$", "reg_token"))
_LAYERSCALE = ((r"\.gamma_([12])$", r".ls\1.gamma"),)
_DINOV3_LICENCE = "DINOv3 licence"

# The first that matches; so from the most telling key to the least.
_LAYOUTS = (
    _Layout(
        "Hugging Face DINOv3",
        lambda keys: _has(r"^layer\.\d+\.attention\.")(keys),
        _HF_EMBEDDINGS + _HF_BLOCKS,
        _DINOV3_LICENCE,
    ),
    _Layout(
        "Hugging Face DINOv2",
        _has(r"^encoder\.layer\.\d+\.attention\."),
        _HF_EMBEDDINGS + _HF_BLOCKS,
        "Apache-2.0",
    ),
    _Layout(
        "MedDINOv3",
        lambda keys: "storage_tokens" in keys and not _has(r"\.qkv\.bias$")(keys),
        _DINOV3,
        None,
    ),
    _Layout("DINOv3", lambda keys: "storage_tokens" in keys, _DINOV3, _DINOV3_LICENCE),
    _Layout(
        "DINOv2 training checkpoint",
        lambda keys: _has(r"\.ls1\.gamma$")(keys) and _has(r"^dino_head\.|^ibot_head\.")(keys),
        _DINOV2,
    ),
    _Layout(
        "chunked DINOv2",
        _has(r"^blocks\.\d+\.\d+\.ls1\.gamma$"),
        _DINOV2,
    ),
    _Layout(
        "DINOv2",
        lambda keys: _has(r"\.ls1\.gamma$")(keys) and "mask_token" in keys,
        _DINOV2,
        "Apache-2.0",
    ),
    _Layout("RETFound MAE", _has(r"^decoder_"), (), "CC BY-NC"),
    _Layout(
        "VisionFM",
        lambda keys: "masked_embed" in keys,
        _LAYERSCALE,
        "CC BY-NC",
    ),
    _Layout("timm", lambda keys: True, _LAYERSCALE),
)


def recognise(content: Mapping[str, object]) -> Checkpoint:
    """Unwrap a file's content, recognise its layout, and bring its tensors to the one naming.

    Args:
        content: what the file holds: tensors by name, perhaps inside of a container.

    Raises:
        ValueError: no tensors.
    """
    tensors = _strip_prefixes(_unwrap(content))
    if not tensors:
        raise ValueError(f"no tensors (keys: {', '.join(sorted(map(str, content))[:5])})")
    layout = next(layout for layout in _LAYOUTS if layout.matches(set(tensors)))
    renamed = {_rename(name, layout.renames): value for name, value in tensors.items()}
    renamed = _fuse_qkv(renamed)
    if "norm.weight" not in renamed:  # a classifier on mean tokens norms after the pooling
        renamed = {re.sub(r"^fc_norm\.", "norm.", name): v for name, v in renamed.items()}
    kept = {name: value for name, value in renamed.items() if not DROPPABLE.match(name)}
    return Checkpoint(layout.name, kept, len(renamed) - len(kept), layout.licence)


def _unwrap(content: Mapping[str, object]) -> Tensors:
    for key in _CONTAINERS:
        if isinstance(inner := content.get(key), Mapping):
            return _unwrap(inner)
    return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}


def _strip_prefixes(tensors: Tensors) -> Tensors:
    """Strip the wrappers' prefixes; what lies beside the wrapped backbone keeps its name."""
    for prefix in (*_PREFIXES, *_PREFIXES):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _rename(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _fuse_qkv(tensors: Tensors) -> Tensors:
    """Join q, k and v into qkv; a missing bias beside present ones is zero (DINOv3's k)."""
    fused = {n: v for n, v in tensors.items() if not re.search(r"\.attn\.[qkv]_proj\.", n)}
    for name, q in tensors.items():
        match = re.match(r"(blocks\.\d+\.attn\.)q_proj\.(weight|bias)$", name)
        if match:
            parts = [tensors.get(f"{match[1]}{part}_proj.{match[2]}") for part in "qkv"]
            if match[2] == "weight" and any(part is None for part in parts):
                continue  # the gate will name the missing qkv.weight
            zeros = torch.zeros_like(q)
            fused[f"{match[1]}qkv.{match[2]}"] = torch.cat(
                [zeros if part is None else part for part in parts]
            )
    gated = any(".mlp.gate_proj." in name for name in fused)
    names = {"gate_proj": "w1", "up_proj": "w2" if gated else "fc1"}
    names["down_proj"] = "w3" if gated else "fc2"
    return {
        re.sub(r"\.mlp\.(gate|up|down)_proj\.", lambda m: f".mlp.{names[m[1] + '_proj']}.", n): v
        for n, v in fused.items()
    }
