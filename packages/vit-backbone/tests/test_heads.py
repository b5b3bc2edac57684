"""Heads are found by name and say their options."""

import sys
from types import ModuleType

import pytest

from vit_backbone import UserError, available_heads, find_head, head_options


def stranger(backbone_name="x", num_classes=1, *, pretrained=None, width: int = 3, **unknown):
    """Stand for somebody's own factory."""


@pytest.fixture
def stranger_module(monkeypatch):
    module = ModuleType("somebodys.head")
    module.create_segmentation_model = stranger
    monkeypatch.setitem(sys.modules, "somebodys", ModuleType("somebodys"))
    monkeypatch.setitem(sys.modules, "somebodys.head", module)


def test_a_dotted_module_is_a_head(stranger_module):
    assert find_head("somebodys.head") is stranger


def test_the_options_are_the_explicit_parameters_beyond_the_standard_ones():
    assert list(head_options(stranger)) == ["width"]
    assert head_options(stranger)["width"].annotation is int


@pytest.mark.parametrize("name", ["unet", "no.such.module", "os.path"])
def test_what_is_no_head_is_refused(name):
    with pytest.raises(UserError, match=name):
        find_head(name)


def test_available_heads_is_sorted():
    assert available_heads() == sorted(available_heads())
