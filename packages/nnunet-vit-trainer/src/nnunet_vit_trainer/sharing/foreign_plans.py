"""What the plans and the dataset.json of a stranger may say before they are installed.

nnU-Net and our `build_network` look names up that stand in these files, and call what they find
with arguments that stand there too. Only names that lead to nnU-Net's own classes and functions,
and to heads that are installed here as such, are let through; everything that stock prediction
reads has the type that it reads.
"""

import inspect
from pathlib import Path
from typing import Annotated, Any

import nnunetv2
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nnunet_vit_trainer.config.reading import check_model
from nnunet_vit_trainer.config.schema import DecoderConfig, ViTModelConfig
from vit_backbone import UserError, available_heads, find_head, quoted
from vit_backbone.heads.finding import STANDARD_ARGUMENTS, is_installed_head

from .archive import is_plain_name

# What build_network passes itself, and what would make it read a file.
_NOT_FROM_PLANS = {"num_classes", "in_channels", "pretrained", "checkpoint_path"}
_OF_BUILD_NETWORK = {"head", "strides"}
_FROM_PLANS = (STANDARD_ARGUMENTS - _NOT_FROM_PLANS) | _OF_BUILD_NETWORK
_RESAMPLING = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")


def _plain(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError("a plain name is expected, of one file or folder")
    return name


def _axes(axes: list[int]) -> list[int]:
    if sorted(axes) != [0, 1, 2]:
        raise ValueError("0, 1 and 2 are expected, in some order")
    return axes


_Name = Annotated[str, AfterValidator(_plain)]
_Side = Annotated[int, Field(ge=1, le=1 << 14)]
_Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Keywords = dict[str, bool | int | float | str | None]


class _Strict(BaseModel):
    """Only what is read here is named; other keys may stand beside."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class _InputNorm(_Strict):
    mean: Annotated[list[_Number], Field(min_length=1)]
    std: Annotated[list[_Size], Field(min_length=1)]
    clamp: Annotated[list[_Number], Field(min_length=2, max_length=2)] | None = None


class _BackboneOptions(_Strict):
    input_norm: _InputNorm | None = None


class _Arguments(_Strict):
    head: str
    backbone_name: str
    use_lora: bool
    freeze_backbone: bool
    backbone_options: _BackboneOptions | None = None


class _Architecture(_Strict):
    arch_kwargs: _Arguments
    kw_requires_import: Annotated[list[Any], Field(alias="_kw_requires_import", max_length=0)]


class _Configuration(_Strict):
    data_identifier: _Name
    preprocessor_name: str
    batch_size: Annotated[int, Field(ge=1)]
    patch_size: Annotated[list[_Side], Field(min_length=2, max_length=2)]
    spacing: Annotated[list[_Size], Field(min_length=2, max_length=3)]
    normalization_schemes: Annotated[list[str], Field(min_length=1)]
    use_mask_for_norm: list[bool]
    resampling_fn_data: str
    resampling_fn_data_kwargs: _Keywords
    resampling_fn_seg: str
    resampling_fn_seg_kwargs: _Keywords
    resampling_fn_probabilities: str
    resampling_fn_probabilities_kwargs: _Keywords
    architecture: _Architecture
    inherits_from: None = None
    previous_stage: None = None


class _Weights(_Strict):
    file: Annotated[str, Field(max_length=1000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    nnunet_checkpoint: bool = False


class _Backbone(_Strict):
    name: Annotated[str, Field(max_length=200)]


class _Ours(_Strict):
    backbone: _Backbone
    weights: _Weights | None


class _Plans(_Strict):
    dataset_name: _Name
    plans_name: _Name
    image_reader_writer: str
    label_manager: str = "LabelManager"
    transpose_forward: Annotated[list[int], AfterValidator(_axes)]
    transpose_backward: Annotated[list[int], AfterValidator(_axes)]
    foreground_intensity_properties_per_channel: dict[str, dict[str, float]]
    configurations: Annotated[dict[_Name, _Configuration], Field(min_length=1, max_length=1)]
    vit: _Ours


class _Dataset(_Strict):
    labels: Annotated[dict[str, Any], Field(min_length=1)]
    channel_names: dict[str, Any] | None = None
    modality: dict[str, Any] | None = None
    regions_class_order: list[int] | None = None
    # nnU-Net appends it to the path that it writes a prediction to.
    file_ending: Annotated[str, Field(pattern=r"^(\.[A-Za-z0-9]+)+$", max_length=20)]
    overwrite_image_reader_writer: str | None = None


def check_foreign(
    plans: dict[str, Any], dataset: dict[str, Any], source: str, head: str | None = None
) -> None:
    """Refuse a stranger's plans and dataset.json that stock prediction could or should not use.

    Args:
        plans: they have passed `model_folder.check_plans`.
        dataset: the content of ``dataset.json``.
        source: where both are from, for messages.
        head: a module that may be imported as the head, beside the installed heads.

    Raises:
        UserError: a key that is missing or has the wrong type; a name that leads out of nnU-Net;
            a head that is not installed; an option that it does not know.
    """
    _check_types(_Plans, plans, f"{source}: plans.json")
    _check_types(_Dataset, dataset, f"{source}: dataset.json")
    (settings,) = plans["configurations"].values()
    _check_channels(plans, settings, dataset, source)
    arguments = settings["architecture"]["arch_kwargs"]
    _check_head(arguments, source, head)
    for name, value in _names_of_classes(plans, settings, dataset):
        _check_class(name, value, source)
    for name in _RESAMPLING:
        _check_resampling(settings[name], settings[f"{name}_kwargs"], f"{source}: {name}")


def _check_types(schema: type[BaseModel], content: Any, source: str) -> None:
    try:
        TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part)[:60] for part in problem["loc"])
        got = "" if problem["type"] == "missing" else f", got {quoted(problem['input'])}"
        raise UserError(f"{source}: {quoted(place)[1:-1]}: {problem['msg']}{got}") from error


def _check_channels(
    plans: dict[str, Any], settings: dict[str, Any], dataset: dict[str, Any], source: str
) -> None:
    names = dataset.get("modality", dataset.get("channel_names")) or {}
    norm = (settings["architecture"]["arch_kwargs"].get("backbone_options") or {}).get("input_norm")
    properties = plans["foreground_intensity_properties_per_channel"]
    if not (
        names
        and len(names) == len(settings["normalization_schemes"])
        and len(names) <= len(settings["use_mask_for_norm"])
        and all(str(i) in properties for i in range(len(names)))
        and all(len(norm[part]) in (1, len(names)) for part in ("mean", "std") if norm)
    ):
        raise UserError(
            f"{source}: dataset.json names {len(names)} channels; normalization_schemes, "
            "use_mask_for_norm, foreground_intensity_properties_per_channel or input_norm in "
            "plans.json are for another number"
        )


def _check_head(arguments: dict[str, Any], source: str, allowed: str | None) -> None:
    """Let no import happen that the receiver did not choose: importing a module runs it."""
    head = arguments["head"]
    if not is_installed_head(head) and head != allowed:
        raise UserError(
            f"{source}: its head {quoted(head)} is not installed here (there are "
            f"{', '.join(available_heads())}); install it, or, if it is a module that you know and "
            "trust, name it with --head"
        )
    options = {n: v for n, v in arguments.items() if n not in _FROM_PLANS}
    refused = sorted(options.keys() & _NOT_FROM_PLANS)
    if refused:
        raise UserError(f"{source}: plans.json: arch_kwargs may not hold {', '.join(refused)}")
    # The factories warn of an option that they do not know; here it is another network.
    taken = inspect.signature(find_head(head)).parameters.keys() | _OF_BUILD_NETWORK
    if untaken := sorted((arguments.keys() & _FROM_PLANS) - taken):
        raise UserError(f"{source}: its head {quoted(head)} does not take {', '.join(untaken)}")
    check_model(ViTModelConfig(model_path=head, decoder=DecoderConfig(**options)), source)


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


# Where nnU-Net looks each name up, and what it calls.
_CLASSES: dict[str, tuple[tuple[str, ...], type]] = {
    "image_reader_writer": (("imageio",), BaseReaderWriter),
    "label_manager": (("utilities", "label_handling"), LabelManager),
    "preprocessor_name": (("preprocessing",), DefaultPreprocessor),
    "normalization_schemes": (("preprocessing", "normalization"), ImageNormalization),
}


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
