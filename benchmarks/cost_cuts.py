"""What each exact cost cut of the heads gains: alternating runs in one process, one thread.

    python benchmarks/cost_cuts.py [--rounds 6]

ViT-S, 256 px, batch 2, random weights; step is forward and backward of the head alone, forward is
without gradients. Medians of the ratio with the cut to without it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from heads import LIGHT
from torch import nn

from vit_backbone import ViTSegmentationModel, find_head
from vit_backbone.heads.recompute import set_recompute
from vit_heads_segformer import SegFormerHead
from vit_heads_unetr import DeconvBlock, UNETRHead, decoder
from vit_heads_unetr.options import DEFAULT_CHANNELS

sys.path.append(str(Path(__file__).parents[1] / "packages" / "vit-heads-segformer" / "tests"))
from test_pyramid import plain_form

BATCH, EMBED_DIM, GRID, CLASSES = 2, 384, 16, 3
LIGHT_AND_DEFAULT = {"UNETR light": LIGHT, "UNETR": DEFAULT_CHANNELS}
Call = Callable[[], torch.Tensor]


def inputs() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Draw four taps that want gradients, and the image."""
    taps = [torch.randn(BATCH, EMBED_DIM, GRID, GRID, requires_grad=True) for _ in range(4)]
    return taps, torch.randn(BATCH, 3, 16 * GRID, 16 * GRID)


def seconds(call: Call, backward: bool) -> float:
    """Time a call, with its backward pass or without gradients."""
    start = time.perf_counter()
    if backward:
        call().square().mean().backward()
    else:
        with torch.inference_mode():
            call()
    return time.perf_counter() - start


def tell(name: str, cut: Call, plain: Call, rounds: int) -> None:
    """Print a row: medians of the ratios of each round but the first."""
    cells = []
    for backward in (True, False):
        ratios = [seconds(cut, backward) / seconds(plain, backward) for _ in range(rounds + 1)]
        cells.append(f"{statistics.median(ratios[1:]):.2f}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def unfolded(head: nn.Module, taps: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Run a UNETR head with each convolution of its blocks computed by itself."""
    with mock.patch.object(DeconvBlock, "folds", return_value=False):
        return head(taps, image)


def unmixed(head: nn.Module, taps: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Run a UNETR head whose merges double the size before they mix channels."""
    with mock.patch.object(decoder, "mixes", return_value=False):
        return head(taps, image)


def as_it_comes(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Run a model whose head gets features and image in torch's own layout."""
    with mock.patch.object(ViTSegmentationModel, "_laid_out", staticmethod(lambda *given: given)):
        return model(image)


def main(rounds: int) -> None:
    """Print a row per cut and head."""
    torch.set_num_threads(1)
    taps, image = inputs()
    print("| cut | step | forward |\n|---|---|---|")
    pyramid = SegFormerHead([EMBED_DIM] * 4, CLASSES, dropout=0.0, neck="pyramid")
    plain = partial(plain_form, pyramid, taps)
    tell("SegFormer pyramid, folded", partial(pyramid, taps, image), plain, rounds)
    for name, channels in LIGHT_AND_DEFAULT.items():
        head = UNETRHead(EMBED_DIM, CLASSES, channels)
        folded = partial(head, taps, image)
        tell(f"{name}, folded", folded, partial(unfolded, head, taps, image), rounds)
        tell(f"{name}, mixed first", folded, partial(unmixed, head, taps, image), rounds)
        less = UNETRHead(EMBED_DIM, CLASSES, channels)
        set_recompute(less)
        tell(f"{name}, recompute", partial(less, taps, image), folded, rounds)
    for name, options in {
        "segformer": {"neck": "pyramid", "shortcut": True, "image_stem": True},
        "unetr": {"decoder_channels": LIGHT},
    }.items():
        model = find_head(name)("dinov3", "small", num_classes=3, pretrained=False, **options)
        model.eval()  # in training features come as they are
        label = f"whole model, {name}, channels last (forward alone)"
        tell(label, partial(model, image), partial(as_it_comes, model, image), rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    main(parser.parse_args().rounds)
