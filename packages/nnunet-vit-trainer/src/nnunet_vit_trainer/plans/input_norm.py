"""What the network still has to do to an image that nnU-Net normalised, or did not.

nnU-Net z-scores a channel unless it is told otherwise by the channel's name; the statistics that a
ViT was trained with are for [0, 1] or Hounsfield units. Applying them to z-scored data shifts it
by several standard deviations, so the plans' ``normalization_schemes`` decide.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_vit_trainer.config.input_statistics import (
    IMAGENET,
    RAW_STATISTICS,
    UNIT_RANGE_STATISTICS,
)
from vit_backbone import UserError

_SMALLEST_STD = 1e-8

_Z_SCORED = {"ZScoreNormalization", "CTNormalization"}
_UNIT_RANGE = {"RGBTo01Normalization", "RescaleTo01Normalization"}
_RAW = {"NoNormalization"}


def resolve_input_norm(
    choice: str | Mapping[str, Sequence[float]],
    schemes: Sequence[str],
    intensities: Mapping[str, Mapping[str, float]],
    *,
    backbone_statistics: Mapping[str, Sequence[float]] = IMAGENET,
) -> tuple[dict[str, list[float]] | None, str]:
    """Decide the normalisation inside of the network.

    Args:
        choice: one of `NAMES`, or ``mean`` and ``std`` (one value, or one per channel).
        schemes: the plans' ``normalization_schemes``, one per channel.
        intensities: the plans' ``foreground_intensity_properties_per_channel``, for raw channels.
        backbone_statistics: ``mean`` and ``std`` that the backbone was trained with, for channels
            in [0, 1].

    Returns:
        The arguments of `vit_backbone.segmentation.input_norm.InputNorm`, or ``None`` for nothing;
        and one line that says what is done.

    Raises:
        UserError: statistics that do not fit how nnU-Net normalises the data.
    """
    channels = len(schemes)
    if not isinstance(choice, str):
        norm = {name: [float(v) for v in values] for name, values in choice.items()}
        _check_explicit(norm, channels)
        return norm, f"the config's own mean {norm['mean']} and std {norm['std']}"
    if choice == "none":
        return None, "none, as configured"
    if choice == "auto":
        return _automatic(schemes, intensities, backbone_statistics)
    needed = _UNIT_RANGE if choice in UNIT_RANGE_STATISTICS else _RAW
    if not set(schemes) <= needed:
        raise UserError(
            f"model.input_norm {choice!r} is for channels normalised by "
            f"{' or '.join(sorted(needed))}, the plans have {', '.join(sorted(set(schemes)))}: "
            "it would normalise twice; use auto"
        )
    norm = dict((UNIT_RANGE_STATISTICS | RAW_STATISTICS)[choice])
    return _for_channels(norm, channels), f"{choice}'s statistics"


def _automatic(
    schemes: Sequence[str],
    intensities: Mapping[str, Mapping[str, float]],
    unit_range: Mapping[str, Sequence[float]],
) -> tuple[dict[str, list[float]] | None, str]:
    if set(schemes) <= _Z_SCORED:
        return None, "none: nnU-Net z-scores the channels, which is what the backbone expects"
    statistics = _for_channels(unit_range, len(schemes))
    whose = next((n for n, known in UNIT_RANGE_STATISTICS.items() if known == unit_range), None)
    if whose is None:
        rounded = [f"{name} {[round(v, 3) for v in unit_range[name]]}" for name in ("mean", "std")]
        whose = f"the backbone's {' and '.join(rounded)}"
    mean, std, said = [], [], []
    for i, scheme in enumerate(schemes):
        if scheme in _Z_SCORED:
            values, what = (0.0, 1.0), "z-scored already"
        elif scheme in _UNIT_RANGE:
            values, what = (statistics["mean"][i], statistics["std"][i]), f"{whose} on [0, 1]"
        elif scheme in _RAW:
            found = intensities.get(str(i), {})
            if not {"mean", "std"} <= found.keys():
                raise UserError(
                    f"model.input_norm auto: the plans say no mean and std of raw channel {i}; "
                    "give none, or mean and std"
                )
            if not (math.isfinite(found["mean"]) and math.isfinite(found["std"])):
                raise UserError(
                    f"model.input_norm auto: the plans' mean and std of raw channel {i} are not "
                    "finite: an image holds NaN or infinite pixels, or no mask any foreground; "
                    "mend the files in nnUNet_raw, then plan and preprocess anew"
                )
            # One value in all foreground: any other, divided by next to nothing, would be huge.
            spread = found["std"] if found["std"] >= _SMALLEST_STD else 1.0
            values, what = (found["mean"], spread), "raw: the data set's own"
        else:
            raise UserError(
                f"model.input_norm auto does not know the plans' scheme {scheme!r}; "
                "give none, or mean and std"
            )
        mean.append(float(values[0]))
        std.append(float(values[1]))
        said.append(f"channel {i} {what}")
    return {"mean": mean, "std": std}, "; ".join(said)


def _for_channels(norm: Mapping[str, Sequence[float]], channels: int) -> dict[str, list[float]]:
    """Repeat single statistics; average three where the image has another number of channels."""
    fitted = {name: list(values) for name, values in norm.items()}
    for name in ("mean", "std"):
        values = norm[name]
        if len(values) != channels:
            fitted[name] = [sum(values) / len(values)] * channels
    return fitted


def _check_explicit(norm: Mapping[str, Any], channels: int) -> None:
    if set(norm) != {"mean", "std"} or any(len(v) not in (1, channels) for v in norm.values()):
        raise UserError(
            f"model.input_norm: mean and std are needed, with 1 or {channels} values each"
        )
    if min(norm["std"]) < _SMALLEST_STD:
        raise UserError(f"model.input_norm.std {norm['std']}: it must be at least {_SMALLEST_STD}")
