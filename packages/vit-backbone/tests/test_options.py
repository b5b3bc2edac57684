"""Options that cannot be meant are refused, in one line, before anything is built or loaded."""

import pytest
import torch

from vit_backbone import UserError, ViTSegmentationModel, create_backbone, find_head
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing import FakeBackbone
from vit_backbone.tuning.lora import enable_lora

IMPOSSIBLE = [
    ({"train_last_blocks": 2}, "train_last_blocks 2 .*set freeze_backbone"),
    ({"train_last_blocks": 2.5}, "train_last_blocks 2.5: a whole number"),
    ({"train_last_blocks": "2"}, "train_last_blocks '2': a whole number"),
    ({"float16_as": "fp16"}, "float16_as 'fp16': there is bfloat16, float32, float16"),
    ({"indices": [0, 1, 2]}, r"indices \[0, 1, 2\]: a head taps four blocks"),
    ({"indices": [0, 1, 2, 3, 4]}, "a head taps four blocks"),
    ({"indices": [0, 1, 2, 99]}, "outside of"),
    ({"indices": [0, 1, 2, 2.5]}, r"indices \[0, 1, 2, 2\.5\]: whole numbers"),
    ({"indices": 3}, "indices 3: whole numbers"),
    ({"input_norm": {"mean": [0.5] * 3, "std": [0.5] * 2}}, "std has 2 values .* 3 channels"),
    ({"input_norm": {"mean": [0.5] * 4, "std": [0.5]}}, "mean has 4 values .* 3 channels"),
    ({"input_norm": {"mean": [0.5]}}, r"input_norm lacks \['std'\]"),
    ({"input_norm": {"mean": [0.5], "std": [0.5], "meen": 1}}, r"not \['meen'\]"),
    ({"input_norm": {}}, "input_norm lacks"),
    ({"input_norm": "auto"}, "input_norm 'auto': mean, std and clamp are expected"),
    ({"use_dora": "no"}, "use_dora 'no': True or False"),
    ({"train_patch_embedding": "no"}, "train_patch_embedding 'no': True or False"),
    ({"layer_scale": 1}, "layer_scale 1: True or False"),
    ({"allow_hybrid": "no"}, "allow_hybrid 'no': True or False"),
    ({"drop_path_rate": 1.5}, "drop_path_rate 1.5"),
    ({"drop_path_rate": "0.1"}, "drop_path_rate '0.1': a number"),
    ({"norm_eps": True}, "norm_eps True: a number"),
    ({"patch_size": 8.5}, "patch_size 8.5"),
    ({"patch_size": True}, "patch_size True: a whole number of at least 1"),
    ({"indices": []}, r"indices \[\]: at least one block"),
    ({"img_size": 100}, "img_size 100: 'test_vit' has patches of 16 px"),
    ({"img_size": 8}, "img_size 8: 'test_vit' has patches of 16 px"),
    ({"norm_eps": 0}, "norm_eps 0"),
    ({"in_chans": 3}, r"unknown backbone_options \['in_chans'\]"),
    ({"checkpoint_path": "x"}, r"unknown backbone_options \['checkpoint_path'\]"),
]


@pytest.mark.parametrize("name", ["freeze_backbone", "use_lora", "image_stem"])
def test_a_text_is_no_truth_value(name):
    with pytest.raises(UserError, match=f"{name} 'no': True or False is expected"):
        find_head("linear")("test_vit", pretrained=False, **{name: "no"})


@pytest.mark.parametrize(("options", "message"), IMPOSSIBLE)
def test_impossible_options_of_a_backbone_are_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        find_head("linear")("test_vit", pretrained=False, use_lora=False, backbone_options=options)
    assert "\n" not in str(caught.value)


LORA = [
    ({"lora_rank": 0}, "LoRA rank 0"),
    ({"lora_rank": 2.5}, "LoRA rank 2.5"),
    ({"lora_rank": True}, "LoRA rank True: a whole number of at least 1"),
    ({"lora_alpha": -16.0}, "lora_alpha -16.0"),
    ({"lora_alpha": float("nan")}, "lora_alpha nan"),
    ({"lora_dropout": 1.5}, "lora_dropout 1.5"),
    ({"lora_dropout": 1.0}, "lora_dropout 1.0"),
    ({"lora_target_modules": "qkv"}, r"is one string; give a list: \['qkv'\]"),
    ({"lora_alpha": "16"}, "lora_alpha '16'"),
    ({"lora_alpha": True}, "lora_alpha True"),
    ({"lora_dropout": float("nan")}, "lora_dropout nan"),
    ({"lora_dropout": None}, "lora_dropout None"),
    ({"lora_target_modules": [["qkv"]]}, "a list of names is expected"),
    ({"lora_target_modules": ["qkv", 1]}, "a list of names is expected"),
    ({"lora_target_modules": b"qkv"}, "a list of names is expected"),
    ({"lora_target_modules": 1}, "a list of names is expected"),
    ({"lora_target_modules": []}, "target_modules is empty"),
]


@pytest.mark.parametrize(("options", "message"), LORA)
def test_impossible_options_of_lora_are_refused_before_anything_is_built(
    options, message, monkeypatch
):
    monkeypatch.setattr(
        "vit_backbone.segmentation.building.create_backbone", lambda *args, **options: 1 / 0
    )
    with pytest.raises(UserError, match=message):
        find_head("linear")("test_vit", pretrained=False, **options)


def test_enabling_lora_by_hand_is_checked_too():
    backbone = create_backbone("test_vit", pretrained=False)[0]
    for arguments in ({"rank": 0}, {"lora_dropout": 1.5}, {"target_modules": "qkv"}):
        with pytest.raises(UserError):
            enable_lora(backbone, **arguments)


def test_lora_options_are_not_looked_at_without_lora():
    find_head("linear")("test_vit", pretrained=False, use_lora=False, lora_rank=0)


def test_a_precision_that_there_is_not_is_refused_by_the_model():
    with pytest.raises(UserError, match="float16_as 'half'"):
        ViTSegmentationModel(FakeBackbone(8), LinearHead(8, 2), float16_as="half")


def test_another_epsilon_does_not_replace_the_kind_of_norm():
    """A LayerNorm in the place of a trained RMSNorm would answer otherwise, without a word."""
    with torch.device("meta"), pytest.raises(UserError, match="has no LayerNorm"):
        create_backbone("aimv2_large_patch14_224", pretrained=False, norm_eps=1e-6)
    backbone = create_backbone("test_vit", pretrained=False, norm_eps=1e-3)[0]
    assert {backbone.norm.eps, backbone.blocks[0].norm1.eps} == {1e-3}
