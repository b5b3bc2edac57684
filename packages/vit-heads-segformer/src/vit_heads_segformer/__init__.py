"""The all-MLP SegFormer head for any vision transformer (Xie et al., SegFormer, NeurIPS 2021)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .factory import create_segformer_model as create_segformer_model
    from .factory import create_segmentation_model as create_segmentation_model
    from .segformer import SegFormerHead as SegFormerHead
    from .segformer import SegFormerSegmentationModel as SegFormerSegmentationModel

_MODULE_OF = {
    "create_segformer_model": "factory",
    "create_segmentation_model": "factory",
    "SegFormerHead": "segformer",
    "SegFormerSegmentationModel": "segformer",
}

__all__ = sorted(_MODULE_OF)


if not TYPE_CHECKING:  # who would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
