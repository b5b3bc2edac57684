"""docs/configuration.md is what the classes and the heads' signatures say today."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_vit_trainer.config.reference import described, values_of, write_reference
from vit_backbone import available_heads

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
HEADS = ("linear", "segformer", "unetr")


def test_the_reference_is_not_stale():
    """A head that is not installed here is looked at where it is (nox -s one_head)."""
    installed = [head for head in HEADS if head in available_heads()]
    text, document = write_reference(installed), DOCUMENT.read_text()
    for section in re.split(r"^(?=##)", text, flags=re.M):
        remedy = "run: nnUNetv2_configs_vit --reference > docs/configuration.md"
        assert section.strip() in document, f"{section.splitlines()[0]}: {remedy}"
    if len(installed) == len(HEADS):
        assert text == document


def test_every_key_is_described():
    for line in write_reference([]).splitlines():
        if re.match(r"\| `\w+` \| `|\| `\w+` \| {}", line):
            assert not line.endswith("|  |"), line


PAIR = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 1}, "whole number (at least 1)"),
        ({"type": "integer", "minimum": 1, "maximum": 1000000}, "whole number (1 to 1,000,000)"),
        (
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1e12},
            "number (above 0, at most 1e+12)",
        ),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number (at least 0, below 1)"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
        ({"enum": ["a", "b"], "type": "string"}, "a, b"),
        (PAIR, "list of 2: true, false"),
        ({"$ref": "#/x"}, "mapping"),
    ],
)
def test_what_a_key_takes_is_said_in_words(schema, said):
    assert values_of(schema) == said


def test_a_docstring_of_somebody_else_is_no_error():
    assert described(None, "Args") == {}
    assert described("One line.", "Args") == {}
    indented = "It.\n\n    Args:\n        a: one,\n            two.\n\n    Raises:\n        b: c"
    assert described(indented, "Args") == {"a": "one, two."}


def test_a_strangers_head_is_in_it(monkeypatch):
    def create_segmentation_model(*, width: int = 64, how: Callable = print, what=None): ...

    monkeypatch.setattr(
        "nnunet_vit_trainer.config.reference.find_head", lambda name: create_segmentation_model
    )
    text = write_reference(["theirs"])
    assert "### model.decoder of the head `theirs`" in text
    assert "| `width` | `64` | whole number |  |" in text
