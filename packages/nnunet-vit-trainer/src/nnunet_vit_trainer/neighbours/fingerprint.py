"""The fingerprint of a converted data set, where nnU-Net's own would spoil its CT channels.

nnU-Net takes the window of CT from the voxels under the mask. In a neighbour's channel these lie
beside the object at its ends, so the same slice would have other values as a neighbour than as
itself.
"""

import json
from pathlib import Path
from typing import Any

from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    get_normalization_scheme,
)

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import UserError

FILE = "dataset_fingerprint.json"
_INTENSITIES = "foreground_intensity_properties_per_channel"


def repeated_fingerprint(
    preprocessed: Path, dataset: dict[str, Any], times: int
) -> dict[str, Any] | None:
    """Return a data set's fingerprint for one in which every channel is there several times.

    Args:
        preprocessed: its folder in nnUNet_preprocessed.
        dataset: the content of its ``dataset.json``.
        times: how often.

    Returns:
        The content; ``None`` where no channel is CT, and nnU-Net may look for itself.

    Raises:
        UserError: there is none, or it is not of these channels.
    """
    names = dataset["channel_names"]
    if not any(get_normalization_scheme(str(n)) is CTNormalization for n in names.values()):
        return None
    file = preprocessed / FILE
    if not file.is_file():
        raise UserError(
            f"there is no {file}, which the CT channels of neighbours need; nnUNetv2_extract_"
            f"fingerprint -d {preprocessed.name[7:10]} makes it"
        )
    content = read_json(file)
    intensities = content.get(_INTENSITIES)
    wanted = [str(channel) for channel in range(len(names))]
    if not isinstance(intensities, dict) or sorted(intensities) != sorted(wanted):
        raise UserError(f"{file} is not of the {len(wanted)} channels of {preprocessed.name}")
    repeated = [intensities[channel] for channel in wanted for _ in range(times)]
    return content | {_INTENSITIES: {str(i): found for i, found in enumerate(repeated)}}


def write_fingerprint(content: dict[str, Any], preprocessed: Path) -> None:
    """Write a fingerprint where nnU-Net looks for one before it extracts it.

    Args:
        content: of it.
        preprocessed: the data set's folder in nnUNet_preprocessed; it need not exist.

    Raises:
        OSError: what the disk says.
    """
    preprocessed.mkdir(parents=True, exist_ok=True)
    with written_whole(preprocessed / FILE) as unfinished:
        unfinished.write_text(json.dumps(content, indent=4), encoding="utf-8")
