"""DINOv3's rotary position embedding, with the size of the grid kept a variable."""

from typing import Any

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import nn


class TraceableRope(RotaryEmbeddingDinoV3):
    """timm's RoPE of DINOv3, bit for bit, for any size of the grid when traced too.

    Without random shifts of coordinates, which no pretrained model of timm's asks for.

    timm divides the coordinates by ``float(height)``, a constant to torch.export: an ONNX file
    would then answer other sizes than the example's wrongly, without a word.
    """

    periods: torch.Tensor

    def _create_embed(self, feat_shape: list[int], no_aug: bool = False) -> torch.Tensor:
        height, width = feat_shape
        wholes: tuple[Any, ...] = (height, width)  # perhaps of torch's symbols
        if self.normalize_coords != "separate":  # up to torch 2.11 these end torch.compile's graph
            of_both: Any = {"max": torch.sym_max, "min": torch.sym_min}[self.normalize_coords]
            wholes = (of_both(height, width),) * 2
        device = self.periods.device  # exact on any; timm copies them from the CPU at each call
        axes = [
            (torch.arange(side, device=device, dtype=torch.float32) + 0.5 + self.grid_offset)
            / whole
            for side, whole in zip(feat_shape, wholes, strict=True)
        ]
        coords = 2 * torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1) - 1
        return torch.cat(self._get_pos_embed_from_coords(coords), dim=-1)


def make_rope_traceable(backbone: nn.Module) -> None:
    """Give a backbone with DINOv3's RoPE the traceable form, in place; leave any other alone."""
    rope = getattr(backbone, "rope", None)
    if type(rope) is RotaryEmbeddingDinoV3 and not rope.aug_active:
        rope.__class__ = TraceableRope
