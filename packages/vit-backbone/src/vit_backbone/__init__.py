"""Foundation vision transformers as segmentation backbones: features, weights, LoRA.

Importing this package costs no torch: every name below is resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone import create_backbone as create_backbone
    from .errors import UserError as UserError
    from .errors import WeightsError as WeightsError
    from .errors import quoted as quoted
    from .errors import reason_of as reason_of
    from .errors import shorten as shorten
    from .export import export_onnx as export_onnx
    from .export import export_program as export_program
    from .heads.factory import head_factory as head_factory
    from .heads.finding import available_heads as available_heads
    from .heads.finding import deep_supervision_strides as deep_supervision_strides
    from .heads.finding import find_head as find_head
    from .heads.finding import head_options as head_options
    from .heads.finding import options_of_old_plans as options_of_old_plans
    from .segmentation.building import build_segmentation_model as build_segmentation_model
    from .segmentation.model import ViTSegmentationModel as ViTSegmentationModel
    from .tuning.lora import adapter_state_dict as adapter_state_dict
    from .tuning.lora import disable_lora as disable_lora
    from .tuning.lora import enable_lora as enable_lora
    from .tuning.patch_embedding import patch_embedding_trains as patch_embedding_trains
    from .vits.families import MODEL_CONFIGS as MODEL_CONFIGS
    from .vits.families import fit_to_checkpoint as fit_to_checkpoint
    from .vits.families import resolve_backbone as resolve_backbone
    from .vits.features import get_vit_features as get_vit_features
    from .vits.packed import pack_linears as pack_linears
    from .vits.plain import PlainViT as PlainViT
    from .vits.statistics import pretrained_statistics as pretrained_statistics
    from .vits.taps import LAYER_INDICES as LAYER_INDICES
    from .vits.taps import LAYER_PRESETS as LAYER_PRESETS
    from .vits.taps import layer_indices as layer_indices
    from .vits.taps import resolve_taps as resolve_taps
    from .weights.files import find_weights as find_weights
    from .weights.files import read_checkpoint as read_checkpoint
    from .weights.files import sha256_of as sha256_of
    from .weights.loading import load_weights as load_weights

_MODULE_OF = {
    "create_backbone": "backbone",
    "UserError": "errors",
    "WeightsError": "errors",
    "quoted": "errors",
    "reason_of": "errors",
    "shorten": "errors",
    "export_onnx": "export",
    "export_program": "export",
    "head_factory": "heads.factory",
    "MODEL_CONFIGS": "vits.families",
    "fit_to_checkpoint": "vits.families",
    "resolve_backbone": "vits.families",
    "get_vit_features": "vits.features",
    "available_heads": "heads.finding",
    "deep_supervision_strides": "heads.finding",
    "find_head": "heads.finding",
    "head_options": "heads.finding",
    "options_of_old_plans": "heads.finding",
    "adapter_state_dict": "tuning.lora",
    "disable_lora": "tuning.lora",
    "enable_lora": "tuning.lora",
    "ViTSegmentationModel": "segmentation.model",
    "build_segmentation_model": "segmentation.building",
    "patch_embedding_trains": "tuning.patch_embedding",
    "pack_linears": "vits.packed",
    "PlainViT": "vits.plain",
    "pretrained_statistics": "vits.statistics",
    "LAYER_INDICES": "vits.taps",
    "LAYER_PRESETS": "vits.taps",
    "layer_indices": "vits.taps",
    "resolve_taps": "vits.taps",
    "find_weights": "weights.files",
    "read_checkpoint": "weights.files",
    "sha256_of": "weights.files",
    "load_weights": "weights.loading",
}

__all__ = sorted(_MODULE_OF)


if not TYPE_CHECKING:  # who would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
