"""A run's learning curves as a picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_vit_trainer.pictures.canvas import WIDTH, new_page

_HEIGHT = 330
_LOSSES = {"train_losses": "training", "val_losses": "validation"}
_DICE = {"mean_fg_dice": "each epoch", "ema_fg_dice": "moving average"}
# Two of Okabe and Ito's that differ in lightness too, and in their lines.
_STYLES = (("#0072b2", "-"), ("#d55e00", "--"))


def draw_curves(logged: Mapping[str, Sequence[Any]]) -> bytes | None:
    """Draw loss and pseudo Dice over the epochs, and return the PNG; ``None`` without an epoch.

    Args:
        logged: what nnU-Net's logger holds, a value per epoch.
    """
    if not any(logged.get(name) for name in (*_LOSSES, *_DICE)):
        return None
    with new_page(_HEIGHT) as page:
        _chart(page, 70, "loss", _LOSSES, logged)
        axes = _chart(page, 70 + WIDTH // 2, "pseudo Dice on validation patches", _DICE, logged)
        axes.set_ylim(0, 1)
        return page.png()


def _chart(
    page: Any, x: int, title: str, lines: Mapping[str, str], logged: Mapping[str, Sequence[Any]]
) -> Any:
    axes = page.axes(x, 40, WIDTH // 2 - 100, _HEIGHT - 95)
    for (key, name), (colour, style) in zip(lines.items(), _STYLES, strict=True):
        values = [float(value) for value in logged.get(key, ())]
        marker = "o" if sum(math.isfinite(value) for value in values) < 3 else None
        axes.plot(values, color=colour, ls=style, lw=1.6, marker=marker, label=name)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("epoch", fontsize=10)
    axes.tick_params(labelsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False)
    return axes
