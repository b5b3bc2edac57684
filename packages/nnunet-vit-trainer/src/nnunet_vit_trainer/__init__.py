"""Train stock nnU-Net v2 with foundation vision transformers; predict with stock commands.

Importing this package costs neither torch nor nnU-Net: names are resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DecoderConfig as DecoderConfig
    from .config import ViTLoRAConfig as ViTLoRAConfig
    from .config import ViTModelConfig as ViTModelConfig
    from .config import ViTnnUNetConfig as ViTnnUNetConfig
    from .config import ViTTrainConfig as ViTTrainConfig
    from .config_file import ConfigError as ConfigError
    from .config_file import load_config as load_config
    from .export import export_vit as export_vit
    from .install import import_vit as import_vit
    from .network import build_network as build_network
    from .plans import derive_plans as derive_plans
    from .run import run_training_vit as run_training_vit
    from .trainer import nnUNetTrainer_vit as nnUNetTrainer_vit
    from .trainer import nnUNetTrainerNoDeepSupervision_vit as nnUNetTrainerNoDeepSupervision_vit

_MODULE_OF = {
    "ConfigError": "config_file",
    "DecoderConfig": "config",
    "ViTLoRAConfig": "config",
    "ViTModelConfig": "config",
    "ViTTrainConfig": "config",
    "ViTnnUNetConfig": "config",
    "load_config": "config_file",
    "build_network": "network",
    "export_vit": "export",
    "import_vit": "install",
    "derive_plans": "plans",
    "run_training_vit": "run",
    "nnUNetTrainer_vit": "trainer",
    "nnUNetTrainerNoDeepSupervision_vit": "trainer",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
