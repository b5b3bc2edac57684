"""The layouts that weight files come in: what tells one, and what its names become.

The one naming is DINO's and timm's plain ViT's (``blocks.N.attn.qkv.weight``,
``blocks.N.ls1.gamma``, ``reg_token``).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

Read = dict[str, torch.Tensor]  # as the file holds it


@dataclass(frozen=True)
class Layout:
    """One kind of file.

    Attributes:
        name: for messages; of a release only where the keys are no one else's.
        matches: says it of the file's tensors.
        renames: regular expressions and what they become, one after the other.
        licence: of the release.
        tower: prefix of the image encoder where the file holds other encoders too.
        note: what the file cannot say.
    """

    name: str
    matches: Callable[[Read], bool]
    renames: tuple[tuple[str, str], ...] = ()
    licence: str | None = None
    tower: str = ""
    note: str = ""


def _has(*patterns: str) -> Callable[[Read], bool]:
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda tensors: all(any(one.search(name) for name in tensors) for one in compiled)


def _is_meddinov3(tensors: Read) -> bool:
    """Say whether it is a ViT-B in DINOv3's names without biases of qkv.

    Of Meta's own files the ViT-B have them (of zeros), and the 7B, which are wider, have none.
    """
    tokens = tensors.get("storage_tokens")
    return tokens is not None and tokens.shape[-1:] == (768,) and not _has(r"\.qkv\.bias$")(tensors)


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

_CLIP = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.gamma$", r".ls\1.gamma"),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^proj$", "head.weight"),
)
_QUICK_GELU = "the file does not say its activation: OpenAI's CLIP needs a *_clip_quickgelu_* model"

# The first that matches; so from the most telling key to the least.
LAYOUTS = (
    Layout(
        "Hugging Face DINOv3",
        _has(r"^layer\.\d+\.attention\."),
        _HF_EMBEDDINGS + _HF_BLOCKS,
        _DINOV3_LICENCE,
    ),
    Layout(
        "Hugging Face DINOv2",
        _has(r"^encoder\.layer\.\d+\.attention\.", r"^encoder\.layer\.\d+\.layer_scale1\."),
        _HF_EMBEDDINGS + _HF_BLOCKS,
        "Apache-2.0",
    ),
    Layout("MedDINOv3", _is_meddinov3, _DINOV3),
    Layout("DINOv3", _has(r"^storage_tokens$"), _DINOV3, _DINOV3_LICENCE),
    Layout(
        "DINOv2 training checkpoint",
        _has(r"\.ls1\.gamma$", r"^dino_head\.|^ibot_head\."),
        _DINOV2,
    ),
    Layout("chunked DINOv2", _has(r"^blocks\.\d+\.\d+\.ls1\.gamma$"), _DINOV2),
    Layout("DINOv2", _has(r"\.ls1\.gamma$", r"^mask_token$"), _DINOV2, "Apache-2.0"),
    # Whose MAE or iBOT no key says: RETFound's and VisionFM's are among them.
    Layout("MAE", _has(r"^decoder_"), _LAYERSCALE, "CC BY-NC"),
    Layout("iBOT", _has(r"^masked_embed$"), _LAYERSCALE, "CC BY-NC"),
    Layout("OpenCLIP", _has(r"^visual\.trunk\."), _LAYERSCALE, tower="visual.trunk."),
    Layout(
        "CLIP",
        _has(r"^visual\.class_embedding$", r"^visual\.transformer\.resblocks\."),
        _CLIP,
        tower="visual.",
        note=_QUICK_GELU,
    ),
    Layout("timm", _has(r"^patch_embed\.proj\.weight$", r"^blocks\.0\."), _LAYERSCALE),
    Layout("unknown", lambda tensors: True),
)
