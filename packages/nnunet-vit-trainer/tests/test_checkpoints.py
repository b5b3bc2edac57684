"""What an adapter checkpoint leaves out, and how it comes back."""

import pytest
import torch
from torch import nn

from nnunet_vit_trainer.checkpoints.base_weights import load_base_weights
from nnunet_vit_trainer.checkpoints.content import fill_up, frozen_names, trained_state
from nnunet_vit_trainer.network import build_network
from vit_backbone import UserError, create_backbone, sha256_of

ADAPTERS = (".lora_A.", ".lora_B.", ".lora_magnitude_vector.")


def network(seed=0, in_channels=3, **options):
    torch.manual_seed(seed)
    return build_network(in_channels, 4, head="linear", backbone_name="test_vit", **options)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weight file, as plans name it."""
    file = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.manual_seed(7)
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), file)
    return {"file": str(file), "sha256": sha256_of(file)}


def changed(model):
    """Move everything that trains, as a training does."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("variant", [{}, {"backbone_options": {"use_dora": True}}])
def test_of_a_lora_backbone_the_adapters_are_kept_and_the_head(variant):
    kept = trained_state(network(use_lora=True, **variant))
    assert {name for name in kept if "head." in name}
    of_backbone = [name for name in kept if name.startswith("backbone.")]
    assert of_backbone
    assert all(any(adapter in name for adapter in ADAPTERS) for name in of_backbone)


def test_adapters_behind_the_last_tap_are_kept_though_they_are_frozen():
    model = network(use_lora=True, backbone_options={"indices": [0, 1, 2, 3]})
    frozen = [n for n, p in model.named_parameters() if ".lora_" in n and not p.requires_grad]
    assert frozen
    assert set(frozen) <= trained_state(model).keys()


def test_an_adapted_patch_embedding_is_kept():
    assert "backbone.patch_embed.proj.weight" in trained_state(network(in_channels=1))
    assert "backbone.patch_embed.proj.weight" not in trained_state(network())


def test_buffers_are_kept_under_frozen_parameters_too():
    model = network(freeze_backbone=True)
    model.backbone.norm = nn.Sequential(nn.BatchNorm1d(64), model.backbone.norm)
    model.backbone.requires_grad_(False)
    kept = {name for name in trained_state(model) if name.startswith("backbone.")}
    assert kept == {f"backbone.norm.0.{n}" for n in ("running_mean", "running_var")} | {
        "backbone.norm.0.num_batches_tracked"
    }


def test_all_of_a_fully_trained_backbone_is_kept():
    model = network(use_lora=False)
    assert trained_state(model).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "options",
    [
        {"use_lora": True},
        {"use_lora": True, "backbone_options": {"use_dora": True}},
        {"freeze_backbone": True},
        {"freeze_backbone": True, "backbone_options": {"train_last_blocks": 2}},
        {"use_lora": True, "in_channels": 1},
    ],
)
def test_the_weight_file_and_what_was_trained_make_the_whole(options, weights):
    trained = network(seed=1, **options)
    load_base_weights(trained, weights)
    changed(trained)
    rebuilt = network(seed=2, **options)
    load_base_weights(rebuilt, weights)
    state = {name: tensor.clone() for name, tensor in trained_state(trained).items()}
    fill_up(state, rebuilt)
    rebuilt.load_state_dict(state)
    expected = trained.state_dict()
    assert all(torch.equal(tensor, expected[n]) for n, tensor in rebuilt.state_dict().items())


def test_what_is_not_of_the_weight_file_is_never_filled_up():
    model = network(use_lora=True)
    state = trained_state(model)
    del state["head.seg_layers.0.weight"]
    fill_up(state, model)
    assert model.state_dict().keys() - state.keys() == {"head.seg_layers.0.weight"}


def test_an_nnunet_checkpoint_is_a_base_too(tmp_path):
    """Of -pretrained_weights: its frozen weights, under their own names."""
    first = network(seed=3, use_lora=True)
    file = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": first.state_dict()}, file)
    base = {"file": str(file), "sha256": sha256_of(file), "nnunet_checkpoint": True}
    second = network(seed=4, use_lora=True)
    load_base_weights(second, base)
    own, theirs = second.state_dict(), first.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in frozen_names(second))
    adapter = "backbone.blocks.0.attn.qkv.lora_A.default.weight"
    assert not torch.equal(own[adapter], theirs[adapter])


def test_a_missing_weight_file_is_named_with_its_sha256(weights, tmp_path):
    gone = weights | {"file": str(tmp_path / "gone.pth")}
    with pytest.raises(UserError, match=rf"not at .*gone\.pth \(sha256 {weights['sha256']}\)"):
        load_base_weights(network(), gone)


def test_another_weight_file_changes_nothing(weights, tmp_path):
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), tmp_path / "o.pth")
    other = weights | {"file": str(tmp_path / "o.pth")}
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"has sha256 .* sha256 {weights['sha256']}"):
        load_base_weights(model, other)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


@pytest.mark.integration  # where the heads are installed
def test_adapters_of_dinov3_large_and_a_light_unetr_weigh_under_60_mb():
    pytest.importorskip("vit_heads_unetr", reason="unetr is not installed")
    with torch.device("meta"):
        network = build_network(
            1,
            4,
            head="unetr",
            backbone_name="vit_large_patch16_dinov3.lvd1689m",
            decoder_channels=[128, 64, 32, 16, 16],
        )
    size, whole = (
        sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        for state in (trained_state(network), network.state_dict())
    )
    assert size < 60e6 < whole
