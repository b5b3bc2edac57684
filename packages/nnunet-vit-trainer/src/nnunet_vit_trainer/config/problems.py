"""What is wrong with a config: every mistake that a file holds, in the one line of its error."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from pydantic import ValidationError

from vit_backbone import shorten

from .schema import DecoderConfig, ViTnnUNetConfig
from .synonyms import SYNONYMS

# Of the 500 characters of an error, beside the file's name.
_ROOM = 470
_MOST_SHOWN = 4
# What pydantic writes between the keys of a problem's place.
_TYPES = re.compile(r"str|int|float|bool|none|literal|(function|list|dict|tuple|constrained)\W.*")
_MAPPING = "a mapping of keys and values is expected"


class Problem(NamedTuple):
    """One mistake in a config.

    Attributes:
        key: dotted, such as ``lora.r``; empty where a whole file or one of its lines is wrong.
        said: what is wrong with it, and what is allowed.
    """

    key: str
    said: str


def in_one_line(problems: Sequence[Problem], source: str) -> str:
    """Say all mistakes of a file in one line: the first four, and how many more there are.

    Args:
        problems: at least one.
        source: the file, of at most 200 characters.
    """
    said = [": ".join(filter(None, problem)) for problem in problems]
    if len(said) == 1:
        return f"{source}: {said[0]}"
    shown = _fitted(said[:_MOST_SHOWN], _ROOM - len(source))
    more = f" and {len(said) - len(shown)} more" if len(said) > len(shown) else ""
    listed = " ".join(f"({number}) {line}" for number, line in enumerate(shown, 1))
    return f"{source}: {len(said)} mistakes: {listed}{more}"


def _fitted(lines: list[str], room: int) -> list[str]:
    """Shorten the longest lines until all of them, and a number before each, fit."""
    fitted = {}
    for left, line in zip(range(len(lines), 0, -1), sorted(lines, key=len), strict=True):
        fitted[line] = shorten(line, room // left - 5)
        room -= len(fitted[line]) + 5
    return [fitted[line] for line in lines]


def is_told(key: str, problems: Sequence[Problem]) -> bool:
    """Say whether a key, a part of it or the mapping that it stands in has a problem already.

    Args:
        key: dotted.
        problems: found so far.
    """
    return any(
        problem.key and f"{one}.".startswith(f"{other}.")
        for problem in problems
        for one, other in ((key, problem.key), (problem.key, key))
    )


def unknown_keys(content: Any, schema: type[Any], prefix: str = "") -> list[Problem]:
    """List the keys that a schema lacks, each with the nearest that it has.

    Args:
        content: as it was read.
        schema: a dataclass of `schema`.
        prefix: the keys above, each with a dot behind it.
    """
    if not isinstance(content, dict) or schema is DecoderConfig:
        return []  # a wrong type is pydantic's to name, and the head's options the head's
    hints = get_type_hints(schema)
    known = [f.name for f in fields(schema)]
    problems = []
    for name, value in content.items():
        if name not in known:
            problems.append(Problem(f"{prefix}{shorten(name)}", suggest(name, known)))
        elif is_dataclass(hints[name]):
            problems += unknown_keys(value, hints[name], f"{prefix}{name}.")
    return problems


def suggest(name: str, known: list[str]) -> str:
    """Say what may be meant by a key that is not known.

    Args:
        name: the key.
        known: those of its place.
    """
    meant = {key: key for key in known}
    meant |= {other: key for other, key in SYNONYMS.items() if key in known}
    if name in meant:
        return f"unknown key; did you mean {meant[name]!r}?"
    valid = f"valid keys: {', '.join(known) or 'none'}"
    if place := _place_of(name, known):
        return f"unknown key; {SYNONYMS.get(name, name)!r} belongs {place} ({valid})"
    near = difflib.get_close_matches(shorten(name), meant, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {meant[near[0]]!r}?"
    return f"unknown key; {valid}"


def _place_of(name: str, known: list[str]) -> str:
    """Say where else in a config a key stands, if it does."""
    sections = get_type_hints(ViTnnUNetConfig)
    if name in sections and known != [*sections]:
        return "at the top, beside the other sections"
    for section, schema in sections.items():
        keys = [f.name for f in fields(schema)]
        if SYNONYMS.get(name, name) in keys and known != keys:
            return f"under {section}"
    return ""


def wrong_types(error: ValidationError, prefix: str) -> list[Problem]:
    """List what pydantic says, one problem for each key.

    Args:
        error: of a section, or of a head's option.
        prefix: the key that was validated, dotted.
    """
    by_key: dict[Any, list[Any]] = {}
    for found in error.errors(include_url=False):
        by_key.setdefault(found["loc"][:1], []).append(found)
    problems = []
    for found in by_key.values():
        # A value of several possible types has a problem with each; the best fit goes deepest.
        best = max(found, key=lambda one: len(one["loc"]))
        location = [shorten(part) for part in best["loc"] if not _TYPES.fullmatch(str(part))]
        message = _MAPPING if best["type"] == "dataclass_type" else best["msg"]
        said = f"{message}, got {shorten(repr(best['input']))}"
        problems.append(Problem(".".join([prefix, *location]), said))
    return problems


def wrong_choice(value: Any, names: Sequence[str], key: str) -> list[Problem]:
    """Say it where a text is none of the names that there are; other types are not its affair.

    Args:
        value: of the key.
        names: that it may be.
        key: dotted.
    """
    if not isinstance(value, str) or value in names:
        return []
    value = shorten(value)
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(names)}"
    return [Problem(key, f"unknown {value!r}; {hint}")]
