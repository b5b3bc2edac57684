"""Which backbone a run builds: from a stranger's checkpoint, and with whose statistics."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_vit_trainer.config.input_statistics import IMAGENET, UNIT_RANGE_STATISTICS
from nnunet_vit_trainer.config.schema import ViTModelConfig
from nnunet_vit_trainer.launch.backbones import (
    as_recorded,
    find_backbone,
    recorded_backbone,
)
from nnunet_vit_trainer.launch.fold import _load_all_but_classifiers
from nnunet_vit_trainer.plans.derive import statistics_of
from nnunet_vit_trainer.plans.input_norm import resolve_input_norm
from vit_backbone import UserError, create_backbone, pretrained_statistics

HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
RGB = ["RGBTo01Normalization"] * 3
OURS = {"vit": {"backbone": {"asked": "test_vit", "name": "test_vit", "options": {}}}}
OTHER = {"vit": {"backbone": OURS["vit"]["backbone"] | {"asked": "another"}}}


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a stranger')",))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), file)
    return file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"just text", "cannot be read as a checkpoint"),
        (b"", "cannot be read as a checkpoint"),
        (b"\x80\x02", "cannot be read as a checkpoint"),
        ([torch.ones(1)], "has no network_weights"),
        ({"model": {}}, "has no network_weights"),
        (Evil(), "cannot be read as a checkpoint"),
        ({"network_weights": {}, "init_args": Evil()}, "cannot be read as a checkpoint"),
        ({"network_weights": {}}, "is not from a training of ours"),
        ({"network_weights": {}, "init_args": None}, "is not from a training of ours"),
        ({"network_weights": {}, "init_args": {"plans": []}}, "is not from a training of ours"),
        ({"network_weights": {}, "init_args": {"plans": {"vit": 1}}}, "is not from a training"),
        (
            {"network_weights": {}, "init_args": {"plans": {"vit": {"backbone": {}}}}},
            "is not from a training of ours",
        ),
        (
            {
                "network_weights": {},
                "init_args": {"plans": {"vit": {"backbone": {"asked": "test_vit"}}}},
            },
            "is not from a training of ours",
        ),
        (
            {"network_weights": {}, "init_args": {"plans": OTHER}},
            "holds backbone 'another', the config asks for 'test_vit'",
        ),
        ({"network_weights": {}, "init_args": {"plans": OURS}}, "has no patch embedding"),
        ({"network_weights": [], "init_args": {"plans": OURS}}, "has no patch embedding"),
    ],
)
def test_pretrained_weights_that_are_no_checkpoint_of_ours(content, said, tmp_path):
    file = tmp_path / "some.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UserError, match=said) as caught:
        find_backbone(ViTModelConfig(backbone="test_vit"), str(file))
    assert len(str(caught.value)) <= 500


def test_a_checkpoint_of_ours_says_its_backbone(tmp_path):
    file = tmp_path / "some.pth"
    weight = torch.ones(4, 2, 16, 16)
    content = {
        "network_weights": {"backbone.patch_embed.proj.weight": weight},
        "logging": [np.float32(1)],
        "init_args": {"plans": OURS},
    }
    torch.save(content, file)
    backbone, weights = find_backbone(ViTModelConfig(backbone="test_vit"), str(file))
    # Trained on two channels, so it is not adapted to them.
    assert backbone == OURS["vit"]["backbone"] | {"in_chans": 2}
    assert weights["nnunet_checkpoint"] is True


@pytest.mark.parametrize("held", [{}, {"weight": 1}, {"weight": torch.ones(7)}, []])
def test_weights_that_do_not_fit_are_one_line(held, tmp_path):
    file = tmp_path / "some.pth"
    torch.save({"network_weights": held}, file)
    with pytest.raises(UserError, match="does not fit the network: 2 of 2 tensors"):
        _load_all_but_classifiers(SimpleNamespace(network=torch.nn.Linear(2, 2)), file)


def test_no_weight_is_dropped(tmp_path):
    """As the biases of a UNETR of version 0.1.0; classifiers are for other classes."""
    file = tmp_path / "some.pth"
    network = torch.nn.Linear(2, 2)
    held = network.state_dict() | {"head.seg_layers.0.bias": torch.ones(3)}
    trainer = SimpleNamespace(network=network, print_to_log_file=lambda line: None)
    torch.save({"network_weights": held}, file)
    _load_all_but_classifiers(trainer, file)
    torch.save({"network_weights": held | {"head.0.bias": torch.ones(2)}}, file)
    with pytest.raises(UserError, match=r"lacks, such as head.0.bias; .*conv_bias: true"):
        _load_all_but_classifiers(trainer, file)
    torch.save({"network_weights": held | {"bias": torch.tensor([1, torch.nan])}}, file)
    with pytest.raises(UserError, match="bias is not finite"):
        _load_all_but_classifiers(trainer, file)


def test_a_backbones_own_statistics_are_taken(weights):
    """timm's augreg and SigLIP models were trained with 0.5 and 0.5, not with ImageNet's."""
    assert pretrained_statistics("vit_base_patch16_224.augreg_in21k") == HALF
    assert pretrained_statistics("vit_base_patch16_siglip_224.webli") == HALF
    model = ViTModelConfig(backbone="test_vit", checkpoint_path=str(weights))
    backbone, _ = find_backbone(model, None)
    assert statistics_of(backbone) == HALF
    norm, said = resolve_input_norm("auto", RGB, {}, backbone_statistics=statistics_of(backbone))
    assert norm == HALF
    assert "channel 0 the backbone's mean [0.5, 0.5, 0.5] and std [0.5, 0.5, 0.5]" in said
    random, _ = find_backbone(ViTModelConfig(backbone="test_vit", pretrained=False), None)
    assert random == OURS["vit"]["backbone"] | {"in_chans": 3}
    assert statistics_of(random) == IMAGENET


@pytest.mark.parametrize(
    ("name", "statistics"),
    [
        ("vit_large_patch16_dinov3.lvd1689m", IMAGENET),
        ("vit_large_patch14_dinov2.lvd142m", IMAGENET),
        ("vit_large_patch16_224.mae", IMAGENET),
        ("vit_large_patch16_dinov3.sat493m", UNIT_RANGE_STATISTICS["dinov3_sat493m"]),
    ],
)
def test_the_families_statistics_are_timms_too(name, statistics):
    """So their plans need not name them, and are what 0.1.0 derived."""
    assert statistics_of({"name": name}) == statistics == pretrained_statistics(name)


def test_weights_that_cannot_be_looked_for_have_moved(weights):
    """Such as into a folder that is closed to this user, or that no system has."""
    model = ViTModelConfig(backbone="test_vit", checkpoint_path=str(weights))
    backbone, found = find_backbone(model, None)
    gone = {"vit": {"backbone": backbone, "weights": found | {"file": "x" * 5000}}}
    assert recorded_backbone(model, gone)[1] == found


def test_weights_that_moved_are_known_by_their_content(weights, tmp_path):
    backbone, found = find_backbone(
        ViTModelConfig(backbone="test_vit", checkpoint_path=str(weights)), None
    )

    def recorded(asked, **changed):
        model = ViTModelConfig(backbone="test_vit", checkpoint_path=str(asked))
        plans = {"vit": {"backbone": backbone, "weights": found | changed}}
        return recorded_backbone(model, plans)[1]

    copied = Path(shutil.copy(weights, tmp_path / "copied.pth"))
    assert recorded(copied) == found  # which is there still
    assert recorded(copied, file="/gone") == found | {"file": str(copied)}
    assert recorded(tmp_path / "not there.pth", file="/gone")["file"] == "/gone"
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    for file in ("/gone", found["file"]):
        with pytest.raises(UserError, match=r"checkpoint_path .*other\.pth has sha256"):
            recorded(other, file=file)
    # Of -pretrained_weights, which stood in the place of the config's own.
    assert recorded(other, nnunet_checkpoint=True) == found | {"nnunet_checkpoint": True}


def test_results_keep_the_statistics_that_they_were_trained_with(weights):
    model = ViTModelConfig(backbone="test_vit", checkpoint_path=str(weights))
    backbone, found = find_backbone(model, None)
    first = {"vit": {"backbone": OURS["vit"]["backbone"], "weights": found}}  # of 0.1.0
    assert statistics_of(recorded_backbone(model, first)[0]) == IMAGENET
    assert statistics_of(as_recorded(backbone, found, first)) == IMAGENET
    later = {"vit": {"backbone": backbone, "weights": found}}
    assert recorded_backbone(model, later)[0] == backbone
    assert as_recorded(backbone, found, later) == backbone
    other = {"vit": {"backbone": first["vit"]["backbone"], "weights": {"sha256": "another"}}}
    assert as_recorded(backbone, found, other) == backbone
