"""What a stranger's plans name of nnU-Net's code, which prediction looks up and calls."""

import inspect
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from vit_backbone import UserError, quoted

# Where nnU-Net looks each name up, and what it calls.
_CLASSES: dict[str, tuple[tuple[str, ...], type]] = {
    "image_reader_writer": (("imageio",), BaseReaderWriter),
    "label_manager": (("utilities", "label_handling"), LabelManager),
    "preprocessor_name": (("preprocessing",), DefaultPreprocessor),
    "normalization_schemes": (("preprocessing", "normalization"), ImageNormalization),
}
_RESAMPLING = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")


def check_named_code(
    plans: dict[str, Any], settings: dict[str, Any], dataset: dict[str, Any], source: str
) -> None:
    """Refuse names that lead to anything but nnU-Net's own classes and functions of that use.

    Args:
        plans: of the types of `schema.Plans`.
        settings: of the configuration in them.
        dataset: the content of ``dataset.json``.
        source: where they are from, for messages.

    Raises:
        UserError: such a name, or keywords that a resampling function does not take.
    """
    for name, value in _names_of_classes(plans, settings, dataset):
        _check_class(name, value, source)
    for name in _RESAMPLING:
        _check_resampling(settings[name], settings[f"{name}_kwargs"], f"{source}: {name}")


def _names_of_classes(
    plans: dict[str, Any], settings: dict[str, Any], dataset: dict[str, Any]
) -> list[tuple[str, str]]:
    names = [
        ("image_reader_writer", plans["image_reader_writer"]),
        ("label_manager", plans.get("label_manager", LabelManager.__name__)),
        ("preprocessor_name", settings["preprocessor_name"]),
        *(("normalization_schemes", scheme) for scheme in settings["normalization_schemes"]),
    ]
    overwritten = dataset.get("overwrite_image_reader_writer")
    if overwritten not in (None, "None"):
        names.append(("image_reader_writer", overwritten))
    return names


def _find_in_nnunet(name: str, *package: str) -> Any:
    folder = Path(nnunetv2.__path__[0]).joinpath(*package)
    return recursive_find_python_class(str(folder), name, ".".join(("nnunetv2", *package)))


def _check_class(key: str, name: str, source: str) -> None:
    package, base = _CLASSES[key]
    found = _find_in_nnunet(name, *package)
    if not inspect.isclass(found) or not issubclass(found, base) or inspect.isabstract(found):
        raise UserError(f"{source}: {key} {quoted(name)} is no {base.__name__} of this nnU-Net")


def _check_resampling(name: str, keywords: dict[str, Any], source: str) -> None:
    package = ("preprocessing", "resampling")
    found = _find_in_nnunet(name, *package)
    own = inspect.isfunction(found) and found.__module__.startswith(
        ".".join(("nnunetv2", *package, ""))
    )
    if not own or not (name.startswith("resample_") or name == "no_resampling_hack"):
        raise UserError(f"{source}: {quoted(name)} is no resampling function of this nnU-Net")
    try:
        # As nnU-Net calls it: data, its new shape, the old and the new spacing.
        inspect.signature(found).bind(*range(4), **keywords)
    except TypeError as error:
        raise UserError(f"{source}: {quoted(name)} does not take its keywords: {error}") from error
