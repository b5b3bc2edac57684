"""The trainer with whichever heads are installed: those work, the others are named as missing."""

import importlib.util

import pytest
import torch

from nnunet_vit_trainer.config.reading import ConfigError, load_config
from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.plans.derive import architecture_of
from vit_backbone import find_head, head_options

HEADS = {"unetr": "vit_heads_unetr", "segformer": "vit_heads_segformer"}
installed = {name for name, module in HEADS.items() if importlib.util.find_spec(module)}


@pytest.mark.parametrize("head", sorted(HEADS))
def test_an_installed_head_builds_and_a_missing_one_is_named(head):
    if head not in installed:
        with pytest.raises(ConfigError, match=rf"uv pip install 'nnunet-vit-trainer\[{head}\]'"):
            load_config(f"{head}_tiny")
        return
    config = load_config(f"{head}_tiny")
    architecture = architecture_of(config, config.model.backbone)
    network = build_network(1, 3, **architecture["arch_kwargs"])
    assert network(torch.randn(1, 1, 40, 56)).shape == (1, 3, 40, 56)


def test_the_recommended_config_names_every_option_of_its_head():
    pytest.importorskip("vit_heads_segformer", reason="segformer is not installed")
    config = load_config("recommended")
    options = head_options(find_head(config.model.model_path))
    assert config.model.decoder.options().keys() == options.keys()
    assert (config.model.backbone, config.model.backbone_size) == ("dinov3", "large")
    assert config.tune == "lora"
