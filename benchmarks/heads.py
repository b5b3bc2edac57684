"""The heads that the benchmarks compare: name -> (the head, its options)."""

from typing import Any

LIGHT = [128, 64, 32, 16, 16]
BOTH = {"shortcut": True, "image_stem": True}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "linear_stem": ("linear", {"image_stem": True}),
    "segformer": ("segformer", {}),
    "segformer_pyramid": ("segformer", {"neck": "pyramid"}),
    "segformer_pyramid_shortcut_stem": ("segformer", {"neck": "pyramid", **BOTH}),
    "segformer_64_pyramid_shortcut_stem": (
        "segformer",
        {"neck": "pyramid", "hidden_size": 64, **BOTH},
    ),
    "unetr_light": ("unetr", {"decoder_channels": LIGHT}),
    "unetr_light_shortcut": ("unetr", {"decoder_channels": LIGHT, "shortcut": True}),
    "unetr_light_shortcut_stem": ("unetr", {"decoder_channels": LIGHT, **BOTH}),
    "unetr": ("unetr", {}),
}
