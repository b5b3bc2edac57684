"""The backbones whose features are drawn: of a trained model, and as they were before."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nnunet_vit_trainer.checkpoints.base_weights import (
    NNUNET_CHECKPOINT,
    find_base_weights,
    load_base_weights,
)
from nnunet_vit_trainer.checkpoints.content import REBUILT_FROM, fill_up, read_safely
from nnunet_vit_trainer.checkpoints.model_folder import network_of
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    create_backbone,
    load_weights,
    reason_of,
    resolve_taps,
)
from vit_backbone.segmentation.input_norm import InputNorm
from vit_backbone.vits.plain import PlainViT


@dataclass(frozen=True)
class View:
    """A backbone to look through.

    Attributes:
        title: what it is called above its picture.
        backbone: in evaluation mode.
        input_norm: see `ViTSegmentationModel`.
        tap: the last block that a head gets.
    """

    title: str
    backbone: PlainViT
    input_norm: nn.Module | None
    tap: int


def trained_views(
    plans: dict[str, Any], dataset: dict[str, Any], checkpoint: Path
) -> tuple[list[View], str]:
    """Return a trained model's backbone, behind the one that it was before, where there is one.

    Args:
        plans: derived.
        dataset: the content of ``dataset.json``.
        checkpoint: of a fold.

    Returns:
        The views; and what to know of them, empty where there is nothing.

    Raises:
        UserError: a checkpoint that cannot be read, or of another model.
    """
    network = _load(plans, dataset, checkpoint)
    tap = resolve_taps(network.indices, len(network.backbone.blocks))[-1]

    def view(title: str, backbone: PlainViT) -> View:
        return View(title, backbone.eval(), network.input_norm, tap)

    weights = plans[PLANS_KEY]["weights"]
    (settings,) = plans["configurations"].values()
    options = settings["architecture"]["arch_kwargs"]
    trained = network.backbone
    if options.get("use_lora") and not options.get("freeze_backbone"):
        plain, said = _without_lora(trained, weights)
        name = "pretrained" if weights else "without LoRA"
        return [view(name, plain), view("with the trained LoRA", trained)], said
    if not any(parameter.requires_grad for parameter in trained.parameters()):
        return [view("pretrained, frozen" if weights else "random, frozen", trained)], ""
    try:
        plain = copy.deepcopy(trained)
        _fill_as_before(plain, weights)
    except UserError as error:
        return [view("trained", trained)], f"not as it was before: {reason_of(error)}"
    return [view("pretrained", plain), view("trained", trained)], ""


def plain_view(
    backbone: dict[str, Any],
    weights: dict[str, Any] | None,
    input_norm: dict[str, Any] | None,
    taps: Any,
    channels: int,
    patch_size: int | None,
) -> View:
    """Build the backbone of a config, and fill it.

    Args:
        backbone: ``name`` and ``options``, as of `derive_plans`; also the next.
        weights: ``None`` leaves it random.
        input_norm: arguments of `InputNorm`.
        taps: see `resolve_taps`.
        channels: of the images.
        patch_size: see `create_backbone`.

    Raises:
        UserError: weights that do not fill it.
    """
    module, _, _ = create_backbone(
        backbone["name"],
        pretrained=False,
        in_chans=channels,
        patch_size=patch_size,
        **backbone["options"],
    )
    if weights is not None:
        load_weights(module, weights["file"])
    norm = InputNorm(**input_norm, channels=channels) if input_norm else None
    tap = resolve_taps(taps, len(module.blocks))[-1]
    title = f"{backbone['name']}{'' if weights else ', random weights'}"
    return View(title, module.eval(), norm, tap)


def _load(plans: dict[str, Any], dataset: dict[str, Any], checkpoint: Path) -> ViTSegmentationModel:
    content = read_safely(checkpoint)
    network = network_of(plans, dataset)
    weights = content["network_weights"]
    if content.get(REBUILT_FROM):
        load_base_weights(network, plans[PLANS_KEY]["weights"])
        fill_up(weights, network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{checkpoint} is of another model: {reason_of(error)}") from error
    return network


def _without_lora(backbone: PlainViT, weights: dict[str, Any] | None) -> tuple[PlainViT, str]:
    """Copy a backbone as it was before; adapters come off, a trained patch embedding is read."""
    from vit_backbone.tuning.lora import drop_lora  # peft is slow to import

    plain = copy.deepcopy(backbone)
    trains_more = any(parameter.requires_grad for parameter in plain.patch_embed.parameters())
    drop_lora(plain)
    if trains_more:
        try:
            _fill_as_before(plain, weights)
        except UserError as error:
            return plain, f"the trained patch embedding in both: {reason_of(error)}"
    return plain, ""


def _fill_as_before(backbone: nn.Module, weights: dict[str, Any] | None) -> None:
    """Fill a backbone from the weight file that its training began with.

    Raises:
        UserError: it began with none, or the file is gone, or another one.
    """
    if not weights or weights.get(NNUNET_CHECKPOINT):
        raise UserError("the training began with no weight file")
    load_weights(backbone, find_base_weights(weights))
