"""What is read of plans and ``dataset.json`` for a card; a stranger may have written them."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vit_backbone import UserError, quoted

Read = TypeVar("Read", bound=BaseModel)


class _Lenient(BaseModel):
    """Other keys may stand beside."""

    model_config = ConfigDict(protected_namespaces=())


class Backbone(_Lenient):
    """The backbone: as it was asked for, and as it was built."""

    name: str
    asked: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


class Weights(_Lenient):
    """The weights that the training began with."""

    file: str
    sha256: str
    nnunet_checkpoint: bool = False


class Ours(_Lenient):
    """The key ``vit`` of derived plans."""

    backbone: Backbone
    model: dict[str, Any] = Field(default_factory=dict)
    lora: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    weights: Weights | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    input_norm: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class Arguments(_Lenient):
    """``arch_kwargs`` of the architecture."""

    head: str
    use_lora: bool = False
    freeze_backbone: bool = False


class Architecture(_Lenient):
    """What nnU-Net builds."""

    arch_kwargs: Arguments


class Settings(_Lenient):
    """The one configuration."""

    patch_size: list[int]
    architecture: Architecture
    spacing: list[float] = Field(default_factory=list)
    normalization_schemes: list[str] = Field(default_factory=list)


class Dataset(_Lenient):
    """``dataset.json``, in nnU-Net's spelling of now and of before."""

    labels: dict[str, int | list[int] | None] = Field(default_factory=dict)
    channel_names: dict[str, str] = Field(default_factory=dict)
    modality: dict[str, str] = Field(default_factory=dict)
    numTraining: int | None = None  # noqa: N815 - nnU-Net's name
    licence: str | None = None
    license: str | None = None
    reference: str | None = None


def read_as(model: type[Read], content: Any, source: str) -> Read:
    """Read content by its types.

    Args:
        model: one of the above.
        content: of a JSON file.
        source: where it is from, for messages.

    Raises:
        UserError: naming the first value that is missing or of another type.
    """
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = quoted(".".join(map(str, problem["loc"])))
        raise UserError(f"{source}: {place}: {problem['msg']}") from error
