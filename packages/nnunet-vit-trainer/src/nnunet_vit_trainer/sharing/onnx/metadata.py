"""What a predictor must know beside the network: JSON among an ONNX file's metadata."""

import itertools
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_vit_trainer.checkpoints.private_paths import without_paths
from nnunet_vit_trainer.plans.derive import PLANS_KEY, RECORDED_VERSIONS
from nnunet_vit_trainer.plans.neighbours import KEY
from vit_backbone import UserError, quoted, sha256_of

METADATA_KEY = "nnunet_vit"
"""Under which it lies in the file's metadata."""

_PREPROCESSOR = "DefaultPreprocessor"
_SCHEMES = tuple(
    f"{name}Normalization" for name in ("ZScore", "CT", "RescaleTo01", "RGBTo01", "No")
)
_LARGEST_OF_UINT8 = 254  # as many foreground labels nnU-Net writes so


def metadata_of(
    plans: dict[str, Any],
    dataset: dict[str, Any],
    content: dict[str, Any],
    checkpoint: Path,
    precision: str,
) -> dict[str, Any]:
    """Describe a network and all that nnU-Net does before and after it, in nnU-Net's own names.

    docs/serving.md explains each key. No path of this machine is in it.

    Args:
        plans: of the trained model.
        dataset: the content of its ``dataset.json``.
        content: of the checkpoint.
        checkpoint: its file, ``fold_0/checkpoint_final.pth`` in the model's folder.
        precision: of the file that is written.

    Raises:
        UserError: a preprocessing that these values do not say.
    """
    ((configuration, settings),) = plans["configurations"].items()
    if settings["preprocessor_name"] != _PREPROCESSOR:
        raise UserError(
            f"the plans preprocess by {quoted(settings['preprocessor_name'])}, not by "
            f"{_PREPROCESSOR}; a predictor of an ONNX file knows only that one: export a zip"
        )
    labels = PlansManager(plans).get_label_manager(dataset)
    of_labels = len(labels.foreground_labels)
    axes = [axis + 1 for axis in content.get("inference_allowed_mirroring_axes") or ()]
    counts = range(len(axes) + 1)
    return without_paths(
        {
            "format": 1,
            "tile": settings["patch_size"],
            "spacing": settings["spacing"],
            "transpose_forward": plans["transpose_forward"],
            "transpose_backward": plans["transpose_backward"],
            "channels": _channels(plans, dataset, settings),
            "neighbours": dataset.get(KEY),
            "flips": [flip for n in counts for flip in itertools.combinations(axes, n)],
            "labels": dataset["labels"],
            "regions_class_order": labels.regions_class_order if labels.has_regions else None,
            "mask_type": "uint8" if of_labels <= _LARGEST_OF_UINT8 else "uint16",
            "image_reader_writer": plans.get("image_reader_writer"),
            "file_ending": dataset.get("file_ending"),
            "model": {
                "dataset": plans["dataset_name"],
                "plans": plans["plans_name"],
                "configuration": configuration,
                "fold": checkpoint.parent.name.removeprefix("fold_"),
                "checkpoint": checkpoint.name,
                "sha256": sha256_of(checkpoint),
                "trained_with": plans[PLANS_KEY].get("versions"),
            },
            "precision": precision,
            "versions": {name: version(name) for name in (*RECORDED_VERSIONS, "onnxruntime")},
        }
    )


def _channels(
    plans: dict[str, Any], dataset: dict[str, Any], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Describe each channel: its name, and how it is normalized.

    Raises:
        UserError: a scheme of the user's own.
    """
    names = dataset.get("channel_names", dataset.get("modality"))
    schemes = settings["normalization_schemes"]
    if unknown := [scheme for scheme in schemes if scheme not in _SCHEMES]:
        raise UserError(
            f"a channel is normalized by {quoted(unknown[0])}; what an ONNX file can name is "
            f"{', '.join(_SCHEMES)}"
        )
    return [
        {
            "name": names[str(number)],
            "scheme": scheme,
            "masked": bool(masked),
            "statistics": plans["foreground_intensity_properties_per_channel"].get(str(number)),
        }
        for number, (scheme, masked) in enumerate(
            zip(schemes, settings["use_mask_for_norm"], strict=True)
        )
    ]
