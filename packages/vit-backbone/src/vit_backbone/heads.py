"""Find heads by name. A head is a factory ``create_segmentation_model``; see `find_head`."""

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable
from typing import Any

from .errors import UserError

ENTRY_POINTS = "vit_backbone.heads"

STANDARD_ARGUMENTS = frozenset(
    {
        "backbone_name",
        "backbone_size",
        "num_classes",
        "checkpoint_path",
        "freeze_backbone",
        "use_lora",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
        "pretrained",
        "in_channels",
        "backbone_options",
        "auxiliary_outputs",
    }
)
"""What every head's factory takes; what it takes beyond them are its options.

``auxiliary_outputs`` is taken only by heads with deep supervision, and set by the trainer.
"""

_LEGACY_NAMES = {
    "nnunetv2.model.model_unetr": "unetr",
    "nnunetv2.model.model_segformer_1": "segformer",
}


def available_heads() -> list[str]:
    """Return the names of the installed heads, sorted."""
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)})


def is_installed_head(name: str) -> bool:
    """Say whether a name is an installed head's, so that `find_head` imports no other module.

    Args:
        name: as in `find_head`.
    """
    return _LEGACY_NAMES.get(name, name) in available_heads()


def find_head(name: str) -> Callable[..., Any]:
    """Return a head's factory ``create_segmentation_model``.

    Args:
        name: an installed head (entry-point group ``vit_backbone.heads``), or a dotted module
            that has ``create_segmentation_model``. The module names of older configs mean ours.

    Raises:
        UserError: no such head or module, or a module without the factory.
    """
    name = _LEGACY_NAMES.get(name, name)
    entries = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    if entries:
        found = _load(next(iter(entries)).load, name)
    elif "." in name:
        found = _load(lambda: importlib.import_module(name), name)
    else:
        raise UserError(
            f"no head {name!r} is installed; installed: {', '.join(available_heads()) or 'none'}"
            f" (ours come with: uv pip install 'nnunet-vit-trainer[{name}]')"
            if name in _LEGACY_NAMES.values()
            else f"no head {name!r} is installed; installed: "
            f"{', '.join(available_heads()) or 'none'}; a dotted module name works too"
        )
    factory = getattr(found, "create_segmentation_model", found)
    if not callable(factory):
        raise UserError(f"head {name!r} has no function create_segmentation_model")
    return factory


def head_options(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the options of a head: the factory's explicit parameters beyond the standard ones.

    An annotation that stands as text is resolved where it can be and dropped where it cannot.
    """
    return {
        name: parameter.replace(annotation=_resolved(parameter, factory))
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in STANDARD_ARGUMENTS and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def deep_supervision_strides(factory: Callable[..., Any]) -> tuple[int, ...] | None:
    """Return a head's step in size from each output of deep supervision to the next, or ``None``.

    Such a head's factory takes ``auxiliary_outputs``, and its module says
    ``DEEP_SUPERVISION_STRIDES``, full size first: (1, 2, 2, 2) is full, 1/2, 1/4 and 1/8.
    """
    return getattr(sys.modules[factory.__module__], "DEEP_SUPERVISION_STRIDES", None)


def _resolved(parameter: inspect.Parameter, factory: Callable[..., Any]) -> Any:
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    try:
        return eval(parameter.annotation, factory.__globals__)
    except NameError:  # imported for type checkers only
        return inspect.Parameter.empty


def _load(load: Callable[[], Any], name: str) -> Any:
    try:
        return load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise UserError(f"head {name!r} cannot be imported: {error!r}") from error
