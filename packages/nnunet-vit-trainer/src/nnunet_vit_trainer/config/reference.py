"""Every key of a config, from the classes that check it and the heads' own signatures."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from vit_backbone import MODEL_CONFIGS, available_heads, find_head, head_options, shorten

from .catalogue import read_shipped, shipped_configs
from .input_statistics import NAMES as NORMS
from .schema import ViTnnUNetConfig

_HEAD = """# Configuration

<!-- written by nnUNetv2_configs_vit --reference: edit the docstrings that it is made of -->

A config is a YAML file of three sections, `model`, `lora` and `train`. What is left out has its
default; a key that is not known, or a value that cannot be meant, is refused in one line.
"""
_SHIPPED = """## Shipped configs

`--config NAME` takes one without a file. `nnUNetv2_configs_vit --show NAME` prints it, with where
its weights come from; `--write NAME` copies it, to be changed. The costs are of 3 channels and 3
classes: GFLOP of one forward pass, memory of a training step of two tiles, counted in float32 by
`benchmarks/config_costs.py`.
"""
_RANGE = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
_WORDS = {"boolean": "true, false", "integer": "whole number", "number": "number", "null": "null"}


def write_reference(heads: Sequence[str] | None = None) -> str:
    """Return the reference as Markdown: the shipped configs, the sections, the heads' options.

    Args:
        heads: names of heads; ``None`` is all that are installed.
    """
    names = available_heads() if heads is None else heads
    parts = [_HEAD, _SHIPPED + "\n" + _table(_shipped_rows())]
    for section, schema in get_type_hints(ViTnnUNetConfig).items():
        parts.append(_section(f"## {section}", schema.__doc__, _keys(schema)))
        if section == "model":
            parts += [_names(), *(_head_section(name) for name in names)]
    return "\n".join(parts)


def _names() -> str:
    lines = [f"Values of `input_norm`: {', '.join(NORMS)}.\n", "Values of `backbone_size`:\n"]
    lines += [f"- {name}: {', '.join(family['sizes'])}" for name, family in MODEL_CONFIGS.items()]
    return "\n".join(lines) + "\n"


def _head_section(name: str) -> str:
    factory = find_head(name)
    title = f"### model.decoder of the head `{name}`"
    return _section(title, factory.__doc__, _options(factory), whole=False)


def _shipped_rows() -> Iterator[tuple[str, ...]]:
    yield ("name", "ViT", "head", "parameters", "GFLOP", "memory", "weights")
    for shipped in map(read_shipped, shipped_configs()):
        weights = f"{shipped.weights}; {shipped.licence}".removesuffix("; none")
        costs = (shipped.size, shipped.gflop, shipped.memory)
        yield (f"`{shipped.name}`", shipped.backbone, shipped.head, *costs, weights)


def _section(title: str, docstring: str | None, rows: Iterator[Any], *, whole: bool = True) -> str:
    """Write a section: what the docstring says above its lists (or its first line), and a table."""
    text = inspect.cleandoc(docstring or "")
    above = re.split(r"^(?:Attributes|Args):$", text, maxsplit=1, flags=re.M)[0].strip()
    said = above if whole else above.partition("\n")[0]
    return f"{title}\n\n{_as_markdown(said)}\n\n{_table(rows)}"


def _keys(schema: type[Any]) -> Iterator[tuple[str, ...]]:
    yield ("key", "default", "values", "what it is")
    default, said = schema(), described(schema.__doc__, "Attributes")
    properties = TypeAdapter(schema).json_schema()["properties"]
    for name in (field.name for field in fields(schema)):
        value = getattr(default, name)
        given = "`{}`" if "$ref" in properties[name] else _as_yaml(value)
        yield (f"`{name}`", given, values_of(properties[name]), _as_markdown(said.get(name, "")))


def _options(factory: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    yield ("key", "default", "values", "what it is")
    said = described(inspect.getdoc(factory), "Args")
    for name, option in head_options(factory).items():
        values = _values_of_type(option.annotation)
        yield (f"`{name}`", _as_yaml(option.default), values, _as_markdown(said.get(name, "")))


def _values_of_type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    try:
        return values_of(TypeAdapter(annotation).json_schema())
    except PydanticUserError:  # a type of a stranger's head, such as a function
        return ""


def described(docstring: str | None, section: str) -> dict[str, str]:
    """Return what a section of a docstring says of each name in it.

    Args:
        docstring: in this project's form, or nobody's.
        section: its title, such as ``Args``.
    """
    body = re.search(
        rf"^{section}:\n(?P<lines>(?: .*\n?|\n)*)", inspect.cleandoc(docstring or ""), re.M
    )
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", body["lines"] if body else "", re.M)
    return {name: " ".join(said.split()) for name, said in entries}


def values_of(schema: dict[str, Any]) -> str:
    """Say in words which values a JSON schema allows.

    Args:
        schema: of one key.
    """
    if "anyOf" in schema:
        return " or ".join(values_of(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    kind = schema.get("type")
    if kind == "array":
        several = schema.get("minItems")
        exact = f" of {several}" if several and several == schema.get("maxItems") else ""
        return f"list{exact}: {values_of(schema.get('items', {}))}"
    plain = "text" if kind == "string" else _WORDS.get(kind, "mapping")
    limits = _limits(schema)
    return f"{plain} ({limits})" if limits else plain


def _limits(schema: dict[str, Any]) -> str:
    if schema.keys() >= {"minimum", "maximum"}:
        return f"{_number(schema['minimum'])} to {_number(schema['maximum'])}"
    return ", ".join(
        f"{word} {_number(schema[key])}" for key, word in _RANGE.items() if key in schema
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e10 else f"{value:g}"


def _as_yaml(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return f"`{shorten(text)}`"


def _as_markdown(text: str) -> str:
    """Turn a docstring's text into a line of Markdown that speaks of YAML."""
    for python, written in (("None", "null"), ("True", "true"), ("False", "false")):
        text = text.replace(f"``{python}``", f"`{written}`")
    return text.replace("``", "`")


def _table(rows: Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * (lines[0].count("|") - 1))
    return "\n".join(lines) + "\n"
