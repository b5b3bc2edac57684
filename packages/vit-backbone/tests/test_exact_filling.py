"""The arithmetic of a filling is float32, and what adapters learned is left alone."""

import pytest
import torch
from safetensors.torch import save_file

from vit_backbone import create_backbone, enable_lora, get_vit_features, load_weights


def fresh(name="test_vit", seed=1, **options):
    torch.manual_seed(seed)
    return create_backbone(name, pretrained=False, **options)[0].eval()


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def half(request, tmp_path):
    """A file in half precision, and the model that it came from, rounded alike."""
    model = fresh(seed=0).to(request.param)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return model.float(), tmp_path / "weights.safetensors"


def test_one_channel_equals_repeating_the_grey_value(half):
    original, file = half
    grey = torch.randn(2, 1, 48, 32)
    model = fresh(in_chans=1)
    load_weights(model, file)
    patches, expected = model.patch_embed(grey), original.patch_embed(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(patches, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_more_channels_are_scaled_in_float32(half, channels):
    original, file = half
    model = fresh(in_chans=channels)
    load_weights(model, file)
    weight = original.patch_embed.proj.weight
    expected = torch.stack([weight[:, i % 3] for i in range(channels)], 1) * (3 / channels)
    assert torch.equal(model.patch_embed.proj.weight, expected)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_file_of_the_image_s_channels_is_not_adapted(channels, tmp_path):
    original = fresh(seed=0, in_chans=channels)
    save_file(original.state_dict(), tmp_path / "weights.safetensors")
    model = fresh(in_chans=channels)
    report = load_weights(model, tmp_path / "weights.safetensors")
    assert torch.equal(model.patch_embed.proj.weight, original.patch_embed.proj.weight)
    assert not report.notes


def test_positions_of_registers_are_folded_in_float32(tmp_path):
    model = fresh("vit_small_patch14_reg4_dinov2", img_size=28)
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    position = torch.full((1, 1, 384), 1e-4, dtype=torch.float16)
    state["cls_token"] = torch.ones(1, 1, 384, dtype=torch.float16)
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    save_file(state, tmp_path / "weights.safetensors")
    load_weights(model, tmp_path / "weights.safetensors")
    assert torch.equal(model.cls_token, 1 + position.float())


def magnitudes(model):
    return {name: t.clone() for name, t in model.state_dict().items() if "magnitude" in name}


@pytest.fixture
def dora(tmp_path):
    """A backbone with new DoRA adapters, and a file of weights five times as large."""
    model = fresh(seed=0)
    larger = {n: t * 5 if "qkv" in n else t for n, t in model.state_dict().items()}
    save_file(larger, tmp_path / "weights.safetensors")
    enable_lora(model, use_dora=True)
    return model, tmp_path / "weights.safetensors"


def test_new_dora_takes_the_magnitudes_of_the_filled_weights(dora):
    model, file = dora
    for _ in range(2):
        load_weights(model, file)
        for block in model.blocks:
            (magnitude,) = block.attn.qkv.lora_magnitude_vector.values()
            expected = block.attn.qkv.base_layer.weight.norm(dim=1)
            torch.testing.assert_close(magnitude.weight, expected)


def test_trained_dora_is_left_alone(dora):
    model, file = dora
    load_weights(model, file)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        features = get_vit_features(model, torch.randn(1, 3, 32, 32))[-1]
        (features * torch.randn_like(features)).mean().backward()  # their norm is a constant
        optimizer.step()
    trained = {name: t.clone() for name, t in model.state_dict().items() if ".lora_" in name}
    load_weights(model, file)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in trained.items())


@pytest.mark.parametrize("factor", [1.1, 1.0005])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_magnitudes_that_alone_were_trained_are_left_alone(dtype, factor, dora):
    """peft keeps adapters of a half-precision backbone in float32."""
    model, file = dora
    load_weights(model, file)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(factor)
    trained = magnitudes(model)
    load_weights(model, file)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in magnitudes(model).items())
