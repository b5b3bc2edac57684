"""Names: what a config's file may be called, which goes into other names; and the defaults."""

import re
from pathlib import Path

from vit_backbone import UserError, shorten

DEFAULT_TRAINER = "nnUNetTrainerNoDeepSupervision_vit"
DEFAULT_PLANS = "nnUNetPlans"
"""Of the data set, from which a run's own are derived."""

# nnU-Net's folder names hold the trainer's and the plans' names beside it, 255 bytes in all.
_LONGEST_NAME = 100


class ConfigError(UserError):
    """A config that cannot be meant; the message names the file, the key and the remedy."""


def check_name(file: Path, given: str | Path | None = None) -> None:
    """Refuse a file whose name nnU-Net would misread in the name of a plans file.

    Args:
        file: that is, or will be, a config.
        given: what the user wrote, for the message; ``None`` is the file.

    Raises:
        ConfigError: see `_LONGEST_NAME`; nnU-Net parses ``__``, and ``_ds`` is taken.
    """
    told = shorten(file if given is None else given, 200)
    if file.stem.endswith("_ds"):
        raise ConfigError(f"{told}: the ending '_ds' is kept for runs with deep supervision")
    if len(file.stem) > _LONGEST_NAME or not re.fullmatch(
        r"[A-Za-z0-9.-]+(_[A-Za-z0-9.-]+)*", file.stem
    ):
        better = re.sub(r"[^A-Za-z0-9.-]+", "_", file.stem).strip("_")[:_LONGEST_NAME]
        hint = f" (say {better}.yaml)" if better else ""
        raise ConfigError(
            f"{told}: the file's name becomes part of the plans' and the results' names, so use "
            f"up to {_LONGEST_NAME} letters, digits, '.', '-' and single '_' between them{hint}"
        )
