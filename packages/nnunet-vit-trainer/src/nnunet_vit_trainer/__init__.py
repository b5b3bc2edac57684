"""Train stock nnU-Net v2 with foundation vision transformers; predict with stock commands.

Importing this package costs neither torch nor nnU-Net: names are resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.reading import ConfigError as ConfigError
    from .config.reading import load_config as load_config
    from .config.schema import DecoderConfig as DecoderConfig
    from .config.schema import ViTLoRAConfig as ViTLoRAConfig
    from .config.schema import ViTModelConfig as ViTModelConfig
    from .config.schema import ViTnnUNetConfig as ViTnnUNetConfig
    from .config.schema import ViTTrainConfig as ViTTrainConfig
    from .launch.run import run_training_vit as run_training_vit
    from .network import build_network as build_network
    from .plans.derive import derive_plans as derive_plans
    from .sharing.export import export_vit as export_vit
    from .sharing.install import import_vit as import_vit
    from .sharing.onnx.write import export_onnx_vit as export_onnx_vit
    from .training.trainer import nnUNetTrainer_vit as nnUNetTrainer_vit
    from .training.trainer import (
        nnUNetTrainerNoDeepSupervision_vit as nnUNetTrainerNoDeepSupervision_vit,
    )

_MODULE_OF = {
    "DecoderConfig": "config.schema",
    "ViTLoRAConfig": "config.schema",
    "ViTModelConfig": "config.schema",
    "ViTnnUNetConfig": "config.schema",
    "ViTTrainConfig": "config.schema",
    "ConfigError": "config.reading",
    "load_config": "config.reading",
    "export_onnx_vit": "sharing.onnx.write",
    "export_vit": "sharing.export",
    "import_vit": "sharing.install",
    "build_network": "network",
    "derive_plans": "plans.derive",
    "run_training_vit": "launch.run",
    "nnUNetTrainer_vit": "training.trainer",
    "nnUNetTrainerNoDeepSupervision_vit": "training.trainer",
}

__all__ = sorted(_MODULE_OF)


if not TYPE_CHECKING:  # who would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
