"""What a file fills gets no first values before, and nothing is left without a value."""

import threading

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vit_backbone import UserError, create_backbone, enable_lora, get_vit_features, load_weights
from vit_backbone.vits.unfilled import build_unfilled, refuse_unfilled, weights_follow
from vit_backbone.weights import loading

OPTIONS = {
    "plain": ("test_vit", {}),
    "channels, patches and grid": (
        "test_vit",
        {"in_chans": 1, "patch_size": 8, "img_size": 64, "norm_eps": 1e-4, "drop_path_rate": 0.1},
    ),
    "LayerScale": ("test_vit", {"layer_scale": True}),
    "norm after pooling": ("test_vit2", {}),
    "pooling by attention": ("test_vit3", {}),
    "registers": ("test_vit4", {}),
    "RoPE, biases apart": ("vit_small_patch16_dinov3_qkvb", {"patch_size": 8}),
    "RoPE": ("vit_small_patch16_dinov3", {}),
    "gated": ("vit_small_plus_patch16_dinov3", {}),
    "DINOv2": ("vit_small_patch14_dinov2", {"pos_embed_resampling": "dinov2", "patch_size": 16}),
    "EVA02": ("eva02_tiny_patch14_224", {"patch_size": 16}),
    "hybrid": ("vit_tiny_r_s16_p8_224", {"allow_hybrid": True}),
}


class Drawn(TorchDispatchMode):
    """Counts the values that are drawn at random, but on the meta device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("uniform_", "normal_") and not args[0].is_meta:
            self.count += args[0].numel()
        return func(*args, **(kwargs or {}))


def tensors_of(module):
    """Return all that is in a module by name, also what its state leaves out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.fixture
def file(tmp_path):
    """Random weights of test_vit."""
    torch.manual_seed(0)
    state = create_backbone("test_vit", pretrained=False)[0].state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("name", OPTIONS)
def test_a_backbone_that_is_filled_at_once_equals_one_with_first_values(name, tmp_path):
    model, options = OPTIONS[name]
    native = {key: options[key] for key in ("layer_scale", "allow_hybrid") if key in options}
    torch.manual_seed(0)
    state = create_backbone(model, pretrained=False, **native)[0].state_dict()
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    ours, *_ = create_backbone(model, None, file, **options)
    theirs, *_ = create_backbone(model, pretrained=False, **options)
    load_weights(theirs, file)
    mine, expected = tensors_of(ours), tensors_of(theirs)
    assert mine.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(mine[key], tensor), key
        assert mine[key].requires_grad == tensor.requires_grad, key
        assert mine[key].stride() == tensor.stride(), key
    image = torch.randn(1, options.get("in_chans", 3), 48, 32)
    with torch.no_grad():
        for one, other in zip(
            get_vit_features(ours.eval(), image),
            get_vit_features(theirs.eval(), image),
            strict=True,
        ):
            assert torch.equal(one, other)


def test_no_value_is_drawn_that_a_file_replaces(file):
    with Drawn() as drawn:
        create_backbone("test_vit", pretrained=False)
    assert drawn.count > 300_000
    with Drawn() as drawn:
        create_backbone("test_vit", None, file)
    assert drawn.count == 0


def test_first_values_are_timms_own_to_the_bit_where_no_file_is_given():
    torch.manual_seed(3)
    ours, *_ = create_backbone("test_vit", pretrained=False)
    torch.manual_seed(3)
    theirs = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_a_parameter_that_the_file_left_out_is_said_at_once(file, monkeypatch):
    """Planted: loading that takes one tensor less for the whole."""
    base_tensors = loading._base_tensors

    def all_but_one(backbone):
        tensors = base_tensors(backbone)
        del tensors["blocks.1.mlp.fc1.bias"]
        return tensors

    refuse = loading._refuse_partial
    monkeypatch.setattr(loading, "_base_tensors", all_but_one)
    monkeypatch.setattr(
        loading,
        "_refuse_partial",
        lambda found, target, *rest: refuse({n: found[n] for n in target}, target, *rest),
    )
    with pytest.raises(RuntimeError, match=r"blocks\.1\.mlp\.fc1\.bias was built without values"):
        create_backbone("test_vit", None, file)


def test_only_the_next_backbone_waits_for_its_weights(file):
    with weights_follow():
        waits, *_ = create_backbone("test_vit", pretrained=False)
        another, *_ = create_backbone("test_vit", pretrained=False)
    refuse_unfilled(another)
    refuse_unfilled(create_backbone("test_vit", pretrained=False)[0])
    assert all(parameter.isnan().all() for parameter in waits.parameters())
    with pytest.raises(RuntimeError, match="cls_token was built without values"):
        refuse_unfilled(waits)
    with torch.no_grad():
        assert get_vit_features(waits, torch.randn(1, 3, 32, 32))[0].isnan().all()
    load_weights(waits, file)
    refuse_unfilled(waits)


@pytest.mark.parametrize("variant", [{}, {"use_dora": True}], ids=str)
def test_adapters_on_an_unfilled_backbone_begin_as_on_any(variant, file):
    with weights_follow():
        waits, *_ = create_backbone("test_vit", pretrained=False)
    filled, *_ = create_backbone("test_vit", None, file)
    for backbone in (waits, filled):
        torch.manual_seed(1)
        enable_lora(backbone, **variant)
    load_weights(waits, file)
    refuse_unfilled(waits)
    for name, tensor in filled.state_dict().items():
        torch.testing.assert_close(waits.state_dict()[name], tensor)


class Computes(nn.Module):
    """Keeps what it computed of a parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("norm", self.weight.detach().norm())


def test_what_needs_first_values_gets_them():
    assert build_unfilled(Computes).norm == Computes().norm
    with (
        pytest.raises(UserError, match="vit_tiny_r_s16_p8_224' is not a plain ViT"),
        weights_follow(),
    ):
        create_backbone("vit_tiny_r_s16_p8_224", pretrained=False)


class Tied(nn.Module):
    """Shares a parameter, freezes one, and keeps what it computed."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.other = nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.nothing = nn.Parameter(torch.empty(0))


def test_what_a_module_is_made_of_stays():
    module = build_unfilled(Tied)
    assert module.one.weight is module.other.weight
    assert module.frozen.dtype == torch.float64
    assert not module.frozen.requires_grad
    assert module.one.bias.requires_grad
    assert module.table.tolist() == [0, 1, 2, 3]
    assert not any(parameter.is_meta for parameter in module.parameters())
    assert not module.nothing.numel()


def test_other_modules_keep_their_first_values():
    """The hook is of all modules: of other threads' too, and it must go, come what may."""
    others = []

    def build():
        thread = threading.Thread(target=lambda: others.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        raise KeyError

    with pytest.raises(KeyError):
        build_unfilled(build)
    assert len(others) == 2  # on meta, and as ever
    for module in (*others, nn.Linear(2, 2)):
        refuse_unfilled(module)


def test_on_the_meta_device_nothing_gets_memory(file):
    with torch.device("meta"), weights_follow():
        model, *_ = create_backbone("test_vit", pretrained=False)
    assert all(tensor.is_meta for tensor in model.parameters())
