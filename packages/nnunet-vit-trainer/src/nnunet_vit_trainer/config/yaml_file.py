"""YAML as people write configs, whoever wrote it: plain data of a bounded size, or one line.

No constructor of the safe loader runs code; what is refused here beside it is what would take
for ever, fill the memory, or mean something else than it says.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from vit_backbone import UserError, shorten

_MOST_BYTES = 100_000
_MOST_VALUES = 10_000
_MOST_KEYS = 200
_DEEPEST = 32
_LARGEST = 10**18
_SURROGATE = re.compile("[\ud800-\udfff]")
_MERGE = "tag:yaml.org,2002:merge"
_STRING = "tag:yaml.org,2002:str"


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file whose document is a mapping; an empty file is an empty one.

    Anchors, aliases and merge keys work. Numbers are decimal, 1e-3 among them; keys are text.

    Args:
        file: of at most 100 kB, in UTF-8 or UTF-16.

    Raises:
        UserError: unreadable, no mapping, a key given twice or of several parts, values that are
            not plain, not finite or beyond 10**18, or more of them than a config has.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"over {_MOST_BYTES // 1000} kB; a config is a page of text")
    try:
        tree = yaml.load(content, Loader=_Loader)
    except RecursionError:
        raise UserError("not readable as YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"not readable as YAML: {_reason(error)}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError("a mapping with model, lora and train is expected")
    _check_values(tree)
    return tree


def _reason(error: Exception) -> str:
    """Say what is wrong and where; PyYAML quotes the line too, which may be long."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return shorten(" ".join(str(error).split()), 200)
    context = getattr(error, "context", None)
    said = f"{context}: {problem}" if context else problem
    return f"{shorten(said, 200)} (line {mark.line + 1}, column {mark.column + 1})"


def _check_values(tree: dict[str, Any]) -> None:
    """Look at each value as often as it stands there: an alias may be used a billion times."""
    seen = 0
    waiting: list[tuple[str, Any, int]] = [("", tree, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise UserError(f"over {_MOST_VALUES:,} values (aliases may repeat them)")
        if depth > _DEEPEST and isinstance(value, dict | list):
            raise UserError(f"{shorten(key)}: nested deeper than {_DEEPEST} levels")
        if isinstance(value, dict):
            named = [(f"{key}.{name}" if key else name, value[name]) for name in value]
            waiting += [(name, item, depth + 1) for name, item in named]
        elif isinstance(value, list):
            waiting += [(key, item, depth + 1) for item in value]
        elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            raise UserError(f"{shorten(key)}: half a character (a surrogate) in {shorten(value)!r}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{shorten(key)}: a finite number is expected, got {value}")
        elif isinstance(value, int | float) and abs(value) > _LARGEST:
            raise UserError(f"{shorten(key)}: a number from -1e18 to 1e18 is expected")
        elif value is not None and not isinstance(value, str | int | float):
            raise UserError(
                f"{shorten(key)}: text, a number, a list or a mapping is expected, "
                f"got a {type(value).__name__}"
            )


class _Loader(yaml.SafeLoader):
    """The safe loader with text for keys, each given once."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is a word, not a list or a mapping", key)
            if key.tag == _MERGE:
                continue
            key.tag = _STRING
            if key.value in seen:
                raise _error(f"key {shorten(key.value)!r} is given twice", key)
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:  # merges of merges grow as a power
            raise _error(f"over {_MOST_KEYS} keys in a mapping", node)


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


# PyYAML follows YAML 1.1, where 1e-3 is text, 010 is eight, 1:30 ninety and 2024-13-01 a crash.
_NUMBERS_AND_DATES = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS_AND_DATES]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
