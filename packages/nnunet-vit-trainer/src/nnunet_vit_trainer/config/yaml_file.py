"""YAML as people write configs, whoever wrote it: plain data of a bounded size, or one line.

No constructor of the safe loader runs code; what is refused here beside it is what would take
for ever, fill the memory, or mean something else than it says.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from vit_backbone import UserError, shorten

from .problems import Problem

_MOST_BYTES = 100_000
_MOST_VALUES = 10_000
_MOST_KEYS = 200
_DEEPEST = 32
_LARGEST = 10**18
_SURROGATE = re.compile("[\ud800-\udfff]")
_MERGE = "tag:yaml.org,2002:merge"
_STRING = "tag:yaml.org,2002:str"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
# What the text itself must say, also where somebody wrote the type before it (``!!int 010``).
_SPOKEN = (_INT, _FLOAT, "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
_MOST_DIGITS = 100


def read_yaml(
    file: Path, keys: str = "model, lora and train"
) -> tuple[dict[str, Any], list[Problem]]:
    """Read a YAML file whose document is a mapping; an empty file is an empty one.

    Anchors, aliases and merge keys work. Numbers are decimal, 1e-3 among them; keys are text.

    Args:
        file: of at most 100 kB, in UTF-8 or UTF-16.
        keys: what is expected in it, for the message where it is no mapping.

    Returns:
        The mapping, and what is wrong in it: keys given twice, and values that are not plain, not
        finite or beyond 10**18.

    Raises:
        UserError: unreadable, no mapping, a key of several parts, a value that is not of the type
            written before it, half a character, or more values or levels than a config has.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"over {_MOST_BYTES // 1000} kB; a config is a page of text")
    try:
        loader = _Loader(content)
        tree = loader.get_single_data()
    except RecursionError:
        raise UserError("not readable as YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"not readable as YAML: {_reason(error)}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"a mapping with {keys} is expected")
    return tree, loader.twice + _check_values(tree)


def _reason(error: Exception) -> str:
    """Say what is wrong and where; PyYAML quotes the line too, which may be long."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return shorten(" ".join(str(error).split()), 200)
    context = getattr(error, "context", None)
    said = f"{context}: {problem}" if context else problem
    return f"{shorten(said, 200)} (line {mark.line + 1}, column {mark.column + 1})"


def _check_values(tree: dict[str, Any]) -> list[Problem]:
    """Look at each value as often as it stands there: an alias may be used a billion times."""
    seen, problems = 0, {}
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
        elif fault := _fault_of(value):
            problems[key] = Problem(shorten(key), fault)  # of a list, its first such value
    return [*problems.values()][::-1]  # the last was looked at first


def _fault_of(value: Any) -> str:
    """Say what is wrong with a single value; nothing is where that is for the schema to say."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number is expected, got {value}"
    if isinstance(value, int | float) and abs(value) > _LARGEST:
        return f"a number from -1e18 to 1e18 is expected, got {shorten(value)}"
    if value is not None and not isinstance(value, str | int | float):
        kind = type(value).__name__
        return f"text, a number, a list or a mapping is expected, got a {kind}"
    return ""


class _Loader(yaml.SafeLoader):
    """The safe loader with text for keys; it notes those that are given twice in ``twice``."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.twice: list[Problem] = []

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
                where = f"line {key.start_mark.line + 1}, column {key.start_mark.column + 1}"
                said = f"key {shorten(key.value)!r} is given twice ({where}); keep one of them"
                self.twice.append(Problem("", said))
            seen.add(key.value)
        return node

    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.tag not in _SPOKEN:
            return node
        if len(node.value) > _MOST_DIGITS:  # Python refuses to count over 4300
            raise _error(f"a number of {len(node.value)} digits", node)
        spoken = self.resolve(yaml.ScalarNode, node.value, (True, False))
        if spoken != node.tag and (spoken, node.tag) != (_INT, _FLOAT):
            kind = node.tag.rpartition(":")[2]
            raise _error(f"{shorten(node.value)!r} is not what !!{kind} says before it", node)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:  # merges of merges grow as a power
            raise _error(f"over {_MOST_KEYS} keys in a mapping", node)


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return ConstructorError(None, None, problem, node.start_mark)


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
