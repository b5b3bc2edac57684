"""A backbone's patch features as colours: images in, one picture out.

C: channels, H, W: image, h, w: its patches, D: width of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from vit_backbone import get_vit_features, shorten
from vit_backbone.segmentation.geometry import pad_to_patches
from vit_backbone.vits.plain import plain_vit

from .canvas import WIDTH, Page, new_page

LONGEST_SIDE = 1024
"""Of an image that is given to the backbone whole, in pixels; a larger one is made smaller."""

_MARGIN, _GAP, _HEAD, _ROW_HEAD, _FOOT = 12, 8, 36, 26, 34
_LEAST, _MOST = 120, 640
_PERCENTILES = (1, 99)


@dataclass(frozen=True)
class Features:
    """The patch features of one image by one backbone.

    Attributes:
        tokens: (h, w, D).
        covered: the share of the patches' height and width that is image, not padding.
    """

    tokens: torch.Tensor
    covered: tuple[float, float]


@dataclass(frozen=True)
class FeatureRow:
    """One image of a picture.

    Attributes:
        name: of the image.
        image: (height, width, 3), 0 to 255.
        features: of each backbone, in the order of the columns.
        aspect: a pixel's height by its width.
    """

    name: str
    image: np.ndarray
    features: Sequence[Features]
    aspect: float = 1.0

    def height_at(self, width: int) -> int:
        """Return the pixels that it needs in height at a width, within limits."""
        rows, columns = self.image.shape[:2]
        return round(min(max(width * rows * self.aspect / columns, _LEAST), _MOST))


@torch.inference_mode()
def patch_features(
    backbone: nn.Module, input_norm: nn.Module | None, image: torch.Tensor, tap: int
) -> Features:
    """Take the patch features behind a block, as a head gets them.

    Args:
        backbone: in evaluation mode.
        input_norm: see `ViTSegmentationModel`.
        image: (C, H, W), normalised as nnU-Net does.
        tap: the block.
    """
    batch = image[None].float()
    if max(batch.shape[-2:]) > LONGEST_SIDE:
        scale = LONGEST_SIDE / max(batch.shape[-2:])
        size = [max(1, round(side * scale)) for side in batch.shape[-2:]]
        batch = F.interpolate(batch, size, mode="bilinear", antialias=True)
    if input_norm is not None:
        batch = input_norm(batch)
    padded = pad_to_patches(batch, plain_vit(backbone).patch_embed.patch_size)
    (tokens,) = get_vit_features(backbone, padded, [tap])
    height, width = (a / b for a, b in zip(batch.shape[-2:], padded.shape[-2:], strict=True))
    return Features(tokens[0].permute(1, 2, 0).float().cpu(), (height, width))


def colours_of(columns: Sequence[Sequence[Features]]) -> tuple[list[list[np.ndarray]], float]:
    """Turn features into colours by their three principal components, the same for all.

    The first component is the brightness, the second runs from yellow to blue and the third from
    green to red: what matters most is seen by the colour-blind too. Each backbone's features are
    taken from their own mean, so that the components tell patches apart and not backbones.

    Args:
        columns: for each backbone, its features of each image, all of one width D.

    Returns:
        For each backbone and image (h, w, 3), 0 to 255; and the share of the features' variance
        that the three components hold.
    """
    centred = []
    for column in columns:
        tokens = torch.cat([of.tokens.flatten(0, 1) for of in column]).double()
        centred.append(tokens - tokens.mean(0))
    everything = torch.cat(centred)
    values, vectors = torch.linalg.eigh(everything.T @ everything)
    # Either sign of a component is as good: the same features have the same colours each time.
    basis = vectors[:, -3:].flip(1)
    basis = basis * torch.sign(basis.gather(0, basis.abs().argmax(0, keepdim=True)))
    projected = [tokens @ basis for tokens in centred]
    low, high = np.percentile(torch.cat(projected).numpy(), _PERCENTILES, axis=0)
    span = np.where(high > low, high - low, 1.0)
    coloured = []
    for column, tokens in zip(columns, projected, strict=True):
        shares = np.clip((tokens.numpy() - low) / span, 0, 1)
        sizes = [of.tokens.shape[:2] for of in column]
        cuts = np.cumsum([height * width for height, width in sizes])[:-1]
        pieces = np.split(_to_rgb(shares), cuts)
        coloured.append([p.reshape(*size, 3) for p, size in zip(pieces, sizes, strict=True)])
    total = float(values.clamp(min=0).sum())
    return coloured, float(values[-3:].sum()) / total if total else 0.0


def _to_rgb(shares: np.ndarray) -> np.ndarray:
    """Turn (N, 3) shares of brightness, blue and red into (N, 3) colours."""
    lowest, highest = np.array([40, 48, 64]), np.array([235, 208, 192])
    values = np.rint(lowest + shares * (highest - lowest)).astype(np.uint8)
    return np.asarray(Image.fromarray(values[None], "YCbCr").convert("RGB"))[0]


def draw_features(
    rows: Sequence[FeatureRow], titles: Sequence[str], said: str, *, apart: bool = False
) -> bytes:
    """Draw images and their features beside each other; return the PNG, 1,000 pixels wide.

    Args:
        rows: the images, at least one; of each the features of every backbone.
        titles: of the backbones.
        said: a line below, of what was drawn.
        apart: colour each backbone by components of its own: their features may differ in width,
            and their colours are not to be compared.
    """
    columns = [[row.features[i] for row in rows] for i in range(len(titles))]
    coloured, shares = _coloured(columns, apart)
    panel = (WIDTH - 2 * _MARGIN - len(titles) * _GAP) // (len(titles) + 1)
    heights = [row.height_at(panel) for row in rows]
    top = _HEAD
    with new_page(_HEAD + sum(heights) + len(rows) * (_ROW_HEAD + _GAP) + _FOOT) as page:
        for column, title in enumerate(("image", *titles)):
            middle = _MARGIN + column * (panel + _GAP) + panel / 2
            page.text(middle, 20, title, ha="center", size=14)
        for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
            page.text(_MARGIN, top + 12, shorten(row.name, 110))
            top += _ROW_HEAD
            box = {"y": top, "width": panel, "height": height}
            page.image(row.image, x=_MARGIN, aspect=row.aspect, **box)
            for column, (of, maps) in enumerate(zip(row.features, coloured, strict=True), start=1):
                x = _MARGIN + column * (panel + _GAP)
                _put(page, maps[number], of, row, x=x, **box)
            top += height + _GAP
        whose = "each" if apart else "all"
        line = f"first 3 principal components of {whose}: {shares} of the variance; {said}"
        page.text(_MARGIN, top + 14, shorten(line, 140))
        return page.png()


def _coloured(
    columns: Sequence[Sequence[Features]], apart: bool
) -> tuple[list[list[np.ndarray]], str]:
    """Colour columns together or each apart; also say the share of the variance that is seen."""
    if not apart:
        coloured, share = colours_of(columns)
        return coloured, f"{share:.0%}"
    found = [colours_of([column]) for column in columns]
    return [of for (of,), _ in found], ", ".join(f"{share:.0%}" for _, share in found)


def _put(page: Page, colours: np.ndarray, of: Features, row: FeatureRow, **box: float) -> None:
    """Put patches into a box so that they lie as the image does, without the padding."""
    rows, columns = (n * share for n, share in zip(colours.shape[:2], of.covered, strict=True))
    sides = row.image.shape
    aspect = row.aspect * (sides[0] / rows) / (sides[1] / columns)
    axes = page.image(colours, aspect=aspect, interpolation="nearest", **box)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
