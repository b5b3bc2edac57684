"""What ``--labels`` says: which value or colour of the masks is which label."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.config.yaml_file import read_yaml
from nnunet_vit_trainer.images.finding.classes import (
    BACKGROUND,
    IGNORE,
    label_of,
    numbers_of_folders,
)
from vit_backbone import UserError, quoted, shorten

_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")
_NUMBER = re.compile(r"-?\d{1,9}")
_MOST_LABELS = 200


@dataclass(frozen=True)
class Named:
    """What ``--labels`` says.

    Attributes:
        values: the values or colours 0xRRGGBB of each label, ``background`` first, ``ignore`` last.
        by_colour: whether they are colours.
    """

    values: dict[str, tuple[int, ...]]
    by_colour: bool


def parse_labels(said: Sequence[str]) -> Named:
    """Read what ``--labels`` says.

    Args:
        said: ``name=value``, ``name=#rrggbb``, several with commas; or the path of one YAML or
            JSON file that maps names so.

    Raises:
        UserError: anything else.
    """
    if len(said) == 1 and "=" not in said[0]:
        pairs = _read_labels(Path(said[0]))
    else:
        parts = [one.rpartition("=") for one in said]
        pairs = [(name.strip(), value.split(",")) for name, _, value in parts]
    values: dict[str, tuple[int, ...]] = {}
    kinds = set()
    for spelled, texts in pairs:
        name = label_of(spelled)
        if not name or name in values:
            raise UserError(f"--labels: {quoted(name)}: each label has a name of its own")
        read = [_value(str(text).strip(), name) for text in texts]
        kinds |= {colour for _, colour in read}
        values[name] = tuple(value for value, _ in read)
    if len(kinds) > 1:
        raise UserError("--labels: values or colours are expected (255 is #ffffff), not both")
    return Named(_ordered(values), kinds == {True})


def named_by_folders(classes: Sequence[str]) -> Named:
    """Return what `parse_labels` does, where folders are named as the labels.

    Args:
        classes: see `numbers_of_folders`.

    Raises:
        UserError: too many, or background and ignore alone.
    """
    return Named(_ordered({name: (i,) for name, i in numbers_of_folders(classes).items()}), False)


def _ordered(values: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Put background first and ignore last, and see that each value is one label's."""
    ordered = {BACKGROUND: values.get(BACKGROUND, (0,))}
    ordered |= {name: v for name, v in values.items() if name not in (BACKGROUND, IGNORE)}
    if IGNORE in values:
        ordered[IGNORE] = values[IGNORE]
    if len(ordered) - (IGNORE in ordered) < 2 or len(ordered) > _MOST_LABELS:
        raise UserError(f"--labels: 1 to {_MOST_LABELS - 1} labels beside background are expected")
    by_value: dict[int, str] = {}
    for name, its in ordered.items():
        for value in its:
            if value in by_value:
                other = f"{shorten(by_value[value], 40)} and {shorten(name, 40)}"
                raise UserError(f"--labels: {other} have the same value, {value}")
            by_value[value] = name
    return ordered


def _value(text: str, name: str) -> tuple[int, bool]:
    if match := _COLOUR.fullmatch(text):
        return int(match[1], 16), True
    if _NUMBER.fullmatch(text):
        return int(text), False
    raise UserError(
        f"--labels: {shorten(name, 40)}={quoted(text, 40)}: a value (255) or a colour (#ff0000) is "
        "expected; in YAML a colour is in quotes"
    )


def _read_labels(file: Path) -> list[tuple[str, list[Any]]]:
    try:
        content, problems = read_yaml(file, "labels with their values")
    except UserError as error:
        raise UserError(f"--labels {shorten(file, 100)}: {error}") from error
    if problems:
        raise UserError(f"--labels {shorten(file, 100)}: {problems[0].said}")
    return [(n, value if isinstance(value, list) else [value]) for n, value in content.items()]
