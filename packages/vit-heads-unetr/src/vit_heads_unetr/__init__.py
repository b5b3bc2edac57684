"""A 2D UNETR head for any vision transformer (Hatamizadeh et al., UNETR, WACV 2022)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blocks import ConvBlock as ConvBlock
    from .blocks import DeconvBlock as DeconvBlock
    from .decoder import UNETRDecoder as UNETRDecoder
    from .factory import create_segmentation_model as create_segmentation_model
    from .options import LIGHT_CHANNELS as LIGHT_CHANNELS
    from .unetr import UNETREncoder as UNETREncoder
    from .unetr import UNETRHead as UNETRHead
    from .unetr import UNETRSegmentationModel as UNETRSegmentationModel

_MODULE_OF = {
    "LIGHT_CHANNELS": "options",
    "create_segmentation_model": "factory",
    "ConvBlock": "blocks",
    "DeconvBlock": "blocks",
    "UNETRDecoder": "decoder",
    "UNETREncoder": "unetr",
    "UNETRHead": "unetr",
    "UNETRSegmentationModel": "unetr",
}

__all__ = sorted(_MODULE_OF)


if not TYPE_CHECKING:  # who would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
