"""Heads are found by name and say their options."""

import sys
from types import ModuleType

import pytest
import torch

from vit_backbone import (
    UserError,
    available_heads,
    deep_supervision_strides,
    find_head,
    head_options,
)
from vit_backbone.linear_head import LinearHead
from vit_backbone.testing import HeadConformance


class TestLinearHead(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return LinearHead(embed_dim, num_classes)

    def find_factory(self):
        return find_head("linear")


def test_the_linear_head_is_registered_and_has_no_options():
    factory = find_head("linear")
    assert head_options(factory) == {}
    assert deep_supervision_strides(factory) is None
    model = factory("test_vit", num_classes=3, pretrained=False, in_channels=1)
    assert model(torch.randn(1, 1, 33, 20)).shape == (1, 3, 33, 20)


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
