"""The types of what stock prediction reads in a stranger's plans and dataset.json."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nnunet_vit_trainer.sharing.archive import is_plain_name


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


class Plans(_Strict):
    """Of ``plans.json``."""

    dataset_name: _Name
    plans_name: _Name
    image_reader_writer: str
    label_manager: str = "LabelManager"
    transpose_forward: Annotated[list[int], AfterValidator(_axes)]
    transpose_backward: Annotated[list[int], AfterValidator(_axes)]
    foreground_intensity_properties_per_channel: dict[str, dict[str, float]]
    configurations: Annotated[dict[_Name, _Configuration], Field(min_length=1, max_length=1)]
    vit: _Ours


class Dataset(_Strict):
    """Of ``dataset.json``."""

    labels: Annotated[dict[str, Any], Field(min_length=1)]
    channel_names: dict[str, Any] | None = None
    modality: dict[str, Any] | None = None
    regions_class_order: list[int] | None = None
    # nnU-Net appends it to the path that it writes a prediction to.
    file_ending: Annotated[str, Field(pattern=r"^(\.[A-Za-z0-9]+)+$", max_length=20)]
    overwrite_image_reader_writer: str | None = None
