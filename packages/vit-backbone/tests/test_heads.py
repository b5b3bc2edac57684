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
    options_of_old_plans,
)
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing import HeadConformance


class TestLinearHead(HeadConformance):
    def make_head(self, embed_dim, num_classes):
        return LinearHead(embed_dim, num_classes)

    def find_factory(self):
        return find_head("linear")


def test_a_linear_head_without_taps_says_so():
    with pytest.raises(UserError, match="0 taps came, and the head takes the last"):
        LinearHead(8, 2)([], torch.randn(1, 3, 32, 32))


def test_the_linear_head_is_registered():
    factory = find_head("linear")
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


@pytest.mark.parametrize("name", ["plain_head", "plain_folder.head"])
def test_a_module_on_pythons_path_is_a_head_with_and_without_a_dot(name, tmp_path, monkeypatch):
    file = tmp_path / f"{name.replace('.', '/')}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("def create_segmentation_model(*, width: int = 3): ...\n")
    with pytest.raises(UserError, match=f"head '{name}'"):
        find_head(name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(head_options(find_head(name))) == ["width"]
    for module in (name, name.partition(".")[0]):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unet", "no head 'unet' is installed; installed: .*linear.*PYTHONPATH"),
        ("untr", "no head 'untr' is installed; installed: .*linear"),
        ("no.such.module", "cannot be imported"),
        ("os.path", "no head 'os.path' is installed"),
        ("antigravity", "no head 'antigravity' is installed"),
        ("this", "no head 'this' is installed"),
        ("timm", "head 'timm' has no function create_segmentation_model"),
        ("timm.layers", "has no function create_segmentation_model"),
        ("", "no head '' is installed"),
        (".relative", "no head '.relative' is installed"),
        ("a b/c", "no head 'a b/c' is installed"),
        ("leaves", "head 'leaves' cannot be imported: SystemExit"),
        ("empty_folder", "has no function create_segmentation_model"),
    ],
)
def test_what_is_no_head_is_refused_in_one_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "empty_folder").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        find_head(name)
    assert "\n" not in str(caught.value)
    assert not {"antigravity", "this"} & set(sys.modules)
    sys.modules.pop("empty_folder", None)


def test_the_current_folder_is_not_looked_into(tmp_path, monkeypatch):
    """Installed commands do not, nor does stock prediction: it would find no head there later."""
    (tmp_path / "head_here.py").write_text("def create_segmentation_model(): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
    with pytest.raises(UserError, match="PYTHONPATH"):
        find_head("head_here")


def test_a_head_says_what_plans_mean_that_are_older_than_its_options(stranger_module, monkeypatch):
    assert options_of_old_plans(find_head("linear")) == {}
    here = sys.modules[stranger.__module__]
    monkeypatch.setattr(here, "OPTIONS_OF_OLD_PLANS", {"width": 1}, raising=False)
    assert options_of_old_plans(stranger) == {"width": 1}


def test_available_heads_is_sorted():
    assert available_heads() == sorted(available_heads())
