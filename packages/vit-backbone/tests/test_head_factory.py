"""A head in a few lines: what `head_factory` adds to the function that builds it."""

import importlib.util
import inspect
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from vit_backbone import (
    UserError,
    ViTSegmentationModel,
    deep_supervision_strides,
    head_factory,
    head_options,
    options_of_old_plans,
)
from vit_backbone.heads.factory import HeadFactory, standard_factory
from vit_backbone.heads.linear_head import LinearHead


def written_out(
    backbone_name="dinov3",
    backbone_size=None,
    num_classes=1,
    checkpoint_path=None,
    freeze_backbone=False,
    use_lora=True,
    lora_rank=8,
    lora_alpha=16.0,
    lora_dropout=0.05,
    lora_target_modules=None,
    *,
    pretrained=None,
    in_channels=3,
    backbone_options=None,
    width: int = 4,
    auxiliary_outputs: bool = False,
    **unknown,
):
    """The factory of version 0.1.0, whose arguments every caller may give by place or name."""


def make(backbone, num_classes, *, width: int = 4, auxiliary_outputs: bool = False):
    """Build a head of my own."""
    head = LinearHead(backbone.num_features, num_classes)
    head.width, head.auxiliary_outputs = width, auxiliary_outputs
    return head


@pytest.fixture
def factory():
    return head_factory(make)


def arguments(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_factory_takes_what_a_written_out_one_takes(factory):
    assert arguments(factory) == arguments(written_out)
    assert factory.__doc__ == "Build a head of my own."
    assert list(head_options(factory)) == ["width"]
    assert head_options(factory)["width"].annotation is int


def test_type_checkers_know_the_arguments_that_every_head_takes():
    told = [*inspect.signature(HeadFactory.__call__).parameters.values()][1:-2]
    taken = [*inspect.signature(standard_factory).parameters.values()][:-1]
    assert [(p.name, p.default, p.annotation) for p in told] == [
        (p.name, p.default, p.annotation) for p in taken
    ]


def test_a_head_is_joined_to_the_backbone_and_its_options_reach_it(factory):
    model = factory("test_vit", None, 2, None, True, pretrained=False, in_channels=1, width=7)
    assert isinstance(model, ViTSegmentationModel)
    assert (model.head.width, model.head.auxiliary_outputs) == (7, False)
    assert not any(p.requires_grad for p in model.backbone.blocks.parameters())
    assert model(torch.randn(1, 1, 33, 20)).shape == (1, 2, 33, 20)


def test_a_whole_model_is_taken_as_it_is():
    class Mine(ViTSegmentationModel):
        pass

    @head_factory
    def create(backbone, num_classes):
        return Mine(backbone, LinearHead(backbone.num_features, num_classes))

    assert type(create("test_vit", pretrained=False, use_lora=False)) is Mine


def test_unknown_options_are_warned_about_and_ignored(factory):
    with pytest.warns(UserWarning, match=r"ignores unknown options \['depth'\]") as caught:
        factory("test_vit", pretrained=False, depth=3)
    assert caught[0].filename == __file__


def test_options_are_checked_before_the_backbone_is_built(monkeypatch):
    def check_options(*, width):
        if width < 1:
            raise UserError(f"width {width}: it must be at least 1")

    module = ModuleType("somebodys_head")
    module.check_options, module.DEEP_SUPERVISION_STRIDES = check_options, (1, 16)
    monkeypatch.setitem(sys.modules, "somebodys_head", module)
    monkeypatch.setattr(make, "__module__", "somebodys_head")
    factory = head_factory(make)
    with pytest.raises(UserError, match="width 0"):
        factory("no_such_backbone", width=0)
    assert deep_supervision_strides(factory) == (1, 16)


def test_a_module_made_of_a_file_by_hand_is_a_head_too(tmp_path):
    """Python's own recipe for it does not register the module."""
    (tmp_path / "by_hand.py").write_text(
        "from vit_backbone import UserError, head_factory\n"
        "from vit_backbone.heads.linear_head import LinearHead\n"
        "DEEP_SUPERVISION_STRIDES, OPTIONS_OF_OLD_PLANS = (1, 16), {'width': 3}\n"
        "def check_options(width):\n    if width < 1: raise UserError(f'width {width}')\n"
        "@head_factory\n"
        "def create_segmentation_model(backbone, num_classes, *, width: int = 4):\n"
        "    return LinearHead(backbone.num_features, num_classes)\n"
    )
    spec = importlib.util.spec_from_file_location("by_hand", tmp_path / "by_hand.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    create = module.create_segmentation_model
    with pytest.raises(UserError, match="width 0"):
        create("test_vit", pretrained=False, use_lora=False, width=0)
    assert isinstance(create("test_vit", pretrained=False, use_lora=False).head, LinearHead)
    assert deep_supervision_strides(create) == (1, 16)
    assert options_of_old_plans(create) == {"width": 3}


@pytest.mark.parametrize("classes", [0, -1, None, 2.0, True, "2"])
def test_a_head_without_classes_is_refused(factory, classes):
    with pytest.raises(UserError, match=f"num_classes {classes!r}: a whole number of at least 1"):
        factory("test_vit", num_classes=classes, pretrained=False)


def test_an_argument_too_many_is_refused(factory):
    with pytest.raises(TypeError, match="too many positional"):
        factory("test_vit", None, 2, None, False, True, 8, 16.0, 0.05, None, False)


def without_classes(backbone, *, width=1): ...
def with_an_option_by_place(backbone, num_classes, width=1): ...
def with_any_options(backbone, num_classes, **options): ...
def with_a_needed_option(backbone, num_classes, *, width): ...
def with_an_argument_of_every_head(backbone, num_classes, *, lora_rank=1): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_classes, "is expected"),
        (with_an_option_by_place, "is expected"),
        (with_any_options, "is expected"),
        (with_a_needed_option, r"\['width'\] need defaults"),
        (with_an_argument_of_every_head, r"\['lora_rank'\] are arguments of every head"),
    ],
)
def test_a_function_of_another_form_is_refused_where_it_is_defined(function, message):
    with pytest.raises(TypeError, match=f"{function.__name__}.*{message}"):
        head_factory(function)


def test_decorating_imports_no_torch():
    code = (
        "import sys; from vit_backbone import head_factory\n"
        "@head_factory\ndef f(backbone, num_classes): ...\n"
        "import inspect; inspect.signature(f); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
