"""Find heads by name. A head is a factory ``create_segmentation_model``; see `find_head`."""

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

from vit_backbone.errors import UserError

from .factory import beside

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
        name: an installed head (entry-point group ``vit_backbone.heads``), or a module, dotted or
            not, that has ``create_segmentation_model`` and lies on Python's path (installed, or
            in PYTHONPATH: commands do not look in the current folder). The module names of older
            configs mean ours.

    Raises:
        UserError: no such head or module, or a module without the factory.
    """
    name = _LEGACY_NAMES.get(name, name)
    entries = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    if entries:
        found = _load(next(iter(entries)).load, name)
    elif _may_be_module(name):
        found = _load(lambda: importlib.import_module(name), name)
    else:
        installed = ", ".join(available_heads()) or "none"
        remedy = (
            f" (ours come with: uv pip install 'nnunet-vit-trainer[{name}]')"
            if name in _LEGACY_NAMES.values()
            else "; nor is there a module of that name (is its folder in PYTHONPATH?)"
        )
        raise UserError(f"no head {name!r} is installed; installed: {installed}{remedy}")
    factory = getattr(found, "create_segmentation_model", found)
    if not callable(factory):
        raise UserError(f"head {name!r} has no function create_segmentation_model")
    return factory


def _may_be_module(name: str) -> bool:
    """Say whether to import a name: nothing of Python's own, and nothing that is not there."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    if name.partition(".")[0] in sys.stdlib_module_names:
        return False
    # What lies inside of a package is found by importing that, which says what is missing.
    return "." in name or name in sys.modules or importlib.util.find_spec(name) is not None


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
    return beside(factory, "DEEP_SUPERVISION_STRIDES")


def options_of_old_plans(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return what plans mean that do not name an option, where that is not the option's default.

    A head that changes what it builds by default keeps what it built before as an option, and its
    module says so: ``OPTIONS_OF_OLD_PLANS = {"conv_bias": True}``.
    """
    return dict(beside(factory, "OPTIONS_OF_OLD_PLANS", {}))


def _resolved(parameter: inspect.Parameter, factory: Callable[..., Any]) -> Any:
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    try:
        return eval(parameter.annotation, inspect.unwrap(factory).__globals__)
    except NameError:  # imported for type checkers only
        return inspect.Parameter.empty


def _load(load: Callable[[], Any], name: str) -> Any:
    try:
        return load()
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a stranger's module raises while it is imported
        raise UserError(f"head {name!r} cannot be imported: {error!r}") from error
