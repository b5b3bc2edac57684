"""Foundation vision transformers as segmentation backbones: features, weights, LoRA.

Importing this package costs no torch: every name below is resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone import create_backbone as create_backbone
    from .errors import UserError as UserError
    from .errors import WeightsError as WeightsError
    from .errors import shorten as shorten
    from .export import export_onnx as export_onnx
    from .export import export_program as export_program
    from .factories import head_factory as head_factory
    from .families import MODEL_CONFIGS as MODEL_CONFIGS
    from .families import fit_to_checkpoint as fit_to_checkpoint
    from .families import resolve_backbone as resolve_backbone
    from .features import get_vit_features as get_vit_features
    from .heads import available_heads as available_heads
    from .heads import deep_supervision_strides as deep_supervision_strides
    from .heads import find_head as find_head
    from .heads import head_options as head_options
    from .heads import options_of_old_plans as options_of_old_plans
    from .lora import adapter_state_dict as adapter_state_dict
    from .lora import disable_lora as disable_lora
    from .lora import enable_lora as enable_lora
    from .model import ViTSegmentationModel as ViTSegmentationModel
    from .model import build_segmentation_model as build_segmentation_model
    from .patch_embedding import patch_embedding_trains as patch_embedding_trains
    from .pretrained import pretrained_statistics as pretrained_statistics
    from .taps import LAYER_INDICES as LAYER_INDICES
    from .taps import LAYER_PRESETS as LAYER_PRESETS
    from .taps import layer_indices as layer_indices
    from .taps import resolve_taps as resolve_taps
    from .weight_files import find_weights as find_weights
    from .weight_files import read_checkpoint as read_checkpoint
    from .weight_files import sha256_of as sha256_of
    from .weights import load_weights as load_weights

_MODULE_OF = {
    "MODEL_CONFIGS": "families",
    "resolve_backbone": "families",
    "fit_to_checkpoint": "families",
    "find_weights": "weight_files",
    "read_checkpoint": "weight_files",
    "sha256_of": "weight_files",
    "UserError": "errors",
    "WeightsError": "errors",
    "shorten": "errors",
    "pretrained_statistics": "pretrained",
    "create_backbone": "backbone",
    "LAYER_INDICES": "taps",
    "LAYER_PRESETS": "taps",
    "layer_indices": "taps",
    "resolve_taps": "taps",
    "get_vit_features": "features",
    "ViTSegmentationModel": "model",
    "build_segmentation_model": "model",
    "enable_lora": "lora",
    "disable_lora": "lora",
    "adapter_state_dict": "lora",
    "load_weights": "weights",
    "export_onnx": "export",
    "export_program": "export",
    "head_factory": "factories",
    "available_heads": "heads",
    "deep_supervision_strides": "heads",
    "find_head": "heads",
    "head_options": "heads",
    "options_of_old_plans": "heads",
    "patch_embedding_trains": "patch_embedding",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
