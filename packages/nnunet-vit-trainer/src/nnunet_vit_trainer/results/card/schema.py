"""What a model card holds; `nnUNetv2_info_vit --json` prints it as it stands here.

The names stay, new ones may come; ``schema_version`` counts up where one goes or changes meaning.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Backbone(BaseModel):
    """The ViT.

    Attributes:
        family: a family of `vit_backbone.MODEL_CONFIGS`; ``None`` for another timm model.
        name: its timm name.
        tuned: ``lora``, ``frozen``, ``full``, ``last_N``.
        lora: its options; ``None`` without LoRA.
        input_norm: what the network does to nnU-Net's normalised channels.
    """

    family: str | None
    name: str
    tuned: str
    lora: dict[str, Any] | None
    input_norm: str | None


class Weights(BaseModel):
    """What the training began with.

    Attributes:
        file: the file's name, without folders; ``None``: the family's released weights.
        sha256: of the file, as it was loaded; ``None`` where it was not loaded yet.
        release: the release that weights of this kind come from; ``None`` where that is not known.
        licence: that release's; ``None`` where it is not known.
    """

    file: str | None
    sha256: str | None
    release: str | None
    licence: str | None


class Head(BaseModel):
    """The decoder: its name, and its options."""

    name: str
    options: dict[str, Any]


class Data(BaseModel):
    """What it was trained on.

    Attributes:
        dataset: nnU-Net's name.
        channels: of the images, in order.
        labels: name -> value, or values of a region.
        tile: height and width in pixels.
        spacing: of the tile's pixels.
        normalisation: nnU-Net's scheme of each channel.
        cases: in the whole data set.
        licence: of the data, where ``dataset.json`` says so; also ``reference``.
        reference: where they are from.
    """

    dataset: str
    channels: list[str]
    labels: dict[str, Any]
    tile: list[int]
    spacing: list[float]
    normalisation: list[str]
    cases: int | None
    licence: str | None
    reference: str | None


class Score(BaseModel):
    """A mean over folds and its standard deviation, ``None`` where there is none."""

    mean: float | None
    spread: float | None


class Dice(BaseModel):
    """What the validation of the folds found.

    Attributes:
        folds: that were validated on cases they did not train on.
        cases: of these folds together.
        mean: over the classes.
        classes: of each.
    """

    folds: list[str]
    cases: int
    mean: Score
    classes: dict[str, Score]


class ModelCard(BaseModel):
    """What a model is, and how to predict with it.

    Attributes:
        schema_version: see the module.
        kind: what was looked at.
        name: of the model's folder, or of the config.
        trainer: nnU-Net's ``-tr``; also ``plans`` (``-p``) and ``configuration`` (``-c``).
        plans: see there.
        configuration: see there.
        folds: that are there, trained to the end or not.
        backbone: the ViT.
        weights: what it began with; ``None``: random ones.
        head: the decoder.
        data: what it was trained on; ``None`` of a config.
        dice: what it reached; ``None`` where no fold's validation says so.
        recipe: the section ``train`` of its config, resolved.
        versions: of what trained it.
        papers: of its parts, as keys of ``references.bib``.
        predict: commands, in order; those that train, of a config; none without a finished fold.
        notes: what a reader must know beside, a sentence each.
    """

    schema_version: Literal[1] = 1
    kind: Literal["results", "zip", "config"]
    name: str
    trainer: str
    plans: str
    configuration: str
    folds: list[str] = Field(default_factory=list)
    backbone: Backbone
    weights: Weights | None
    head: Head
    data: Data | None = None
    dice: Dice | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    papers: list[str] = Field(default_factory=list)
    predict: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
