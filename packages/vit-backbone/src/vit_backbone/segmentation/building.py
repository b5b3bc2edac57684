"""Build the model of a backbone and a head from what every factory is given."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from vit_backbone.backbone import create_backbone
from vit_backbone.errors import UserError, check_flag, quoted
from vit_backbone.tuning.lora_options import check_lora_options
from vit_backbone.vits.plain import PlainViT
from vit_backbone.vits.taps import resolve_taps

from .input_norm import InputNorm
from .model import ViTSegmentationModel
from .precision import check_float16_as

_BACKBONE_OPTIONS = {
    name
    for name, parameter in inspect.signature(create_backbone).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} - {"pretrained", "in_chans"}


def build_segmentation_model(
    make_model: Callable[[PlainViT], ViTSegmentationModel],
    *,
    backbone_name: str,
    backbone_size: str | None,
    checkpoint_path: str | Path | None,
    freeze_backbone: bool,
    use_lora: bool,
    lora_rank: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: Sequence[str] | None,
    pretrained: bool | None,
    in_channels: int,
    backbone_options: Mapping[str, Any] | None = None,
) -> ViTSegmentationModel:
    """Build what every head's ``create_segmentation_model`` returns.

    Args:
        make_model: joins the backbone and the head.
        backbone_name: see `create_backbone`, as for the next four.
        backbone_size: see there.
        checkpoint_path: see there.
        pretrained: see there.
        in_channels: see there.
        freeze_backbone: train the head alone; it wins over ``use_lora``.
        use_lora: tune by LoRA, with the next four as in `enable_lora`.
        lora_rank: see there.
        lora_alpha: see there.
        lora_dropout: see there.
        lora_target_modules: see there.
        backbone_options: the last options of `create_backbone`, and ``indices`` (four taps, see
            `resolve_taps`), ``input_norm`` (arguments of `InputNorm`), ``train_last_blocks`` (of
            a frozen backbone), ``float16_as`` (see `instead_of_float16`), ``use_dora`` and
            ``use_rslora`` (see `enable_lora`).

    Raises:
        UserError: what `create_backbone` and `enable_lora` refuse, or an unknown or impossible
            option.
    """
    check_flag("freeze_backbone", freeze_backbone)
    check_flag("use_lora", use_lora)
    options = dict(backbone_options or {})
    taps = options.pop("indices", None)
    input_norm = options.pop("input_norm", None)
    train_last_blocks = options.pop("train_last_blocks", 0)
    float16_as = options.pop("float16_as", "bfloat16")
    variants = {name: options.pop(name, False) for name in ("use_dora", "use_rslora")}
    for name, value in variants.items():
        check_flag(name, value)
    if unknown := sorted(set(options) - _BACKBONE_OPTIONS):
        raise UserError(f"unknown backbone_options {unknown}")
    if not isinstance(train_last_blocks, Integral):
        raise UserError(f"train_last_blocks {train_last_blocks!r}: a whole number is expected")
    if train_last_blocks and not freeze_backbone:
        raise UserError(
            f"train_last_blocks {train_last_blocks} is of a frozen backbone; set freeze_backbone"
        )
    if use_lora and not freeze_backbone:
        check_lora_options(lora_rank, lora_alpha, lora_dropout, lora_target_modules)
    check_float16_as(float16_as)
    norm = None if input_norm is None else _input_norm(input_norm, in_channels)
    backbone, _, _ = create_backbone(
        backbone_name,
        backbone_size,
        checkpoint_path,
        pretrained=pretrained,
        in_chans=in_channels,
        **options,
    )
    taps = resolve_taps(taps, len(backbone.blocks))
    if len(taps) != 4:
        raise UserError(f"indices {taps}: a head taps four blocks")
    model = make_model(backbone)
    model.indices = taps
    model.input_norm = norm
    model.float16_as = float16_as
    if freeze_backbone:
        model.freeze_backbone(train_last_blocks)
    elif use_lora:
        model.enable_lora(lora_rank, lora_alpha, lora_dropout, lora_target_modules, **variants)
    model.freeze_behind_last_tap()
    return model


def _input_norm(arguments: Mapping[str, Any], channels: int) -> InputNorm:
    if not isinstance(arguments, Mapping):
        raise UserError(f"input_norm {quoted(arguments)}: mean, std and clamp are expected")
    if unknown := sorted(set(arguments) - {"mean", "std", "clamp"}):
        raise UserError(f"input_norm has mean, std and clamp, not {unknown}")
    if missing := sorted({"mean", "std"} - set(arguments)):
        raise UserError(f"input_norm lacks {missing}")
    return InputNorm(**arguments, channels=channels)
