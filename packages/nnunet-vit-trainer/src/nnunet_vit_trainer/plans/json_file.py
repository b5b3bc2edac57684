"""JSON files that hold a mapping: plans, ``dataset.json``, summaries."""

import json
from pathlib import Path
from typing import Any

from vit_backbone import UserError, reason_of

_DEEPEST = 64
"""Levels of a JSON file; plans have about eight. Copying and writing recurse."""


def read_json(file: Path) -> dict[str, Any]:
    """Read a mapping from a JSON file.

    Args:
        file: in UTF-8 without a mark at its beginning (BOM), as nnU-Net reads it.

    Raises:
        UserError: it is missing or unreadable, or see `parse_json`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {reason_of(error)}") from error
    return parse_json(content, str(file))


def parse_json(text: str | bytes, source: str) -> dict[str, Any]:
    """Read a mapping from JSON.

    Args:
        text: the JSON; bytes are UTF-8.
        source: where it is from, for messages.

    Raises:
        UserError: not JSON of whole characters, not a mapping, or nested too deeply.
    """
    try:
        content = json.loads(text.decode() if isinstance(text, bytes) else text)
        json.dumps(content, ensure_ascii=False).encode()  # "\\ud800" is no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} cannot be read as JSON: {reason_of(error)}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"{source} cannot be read: it is a {kind}, where a mapping is expected")
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise UserError(f"{source} is nested deeper than {_DEEPEST} levels")
    return content
