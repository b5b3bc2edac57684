"""The shipped configs: each parses, builds, and is what the comments at its head say."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_vit_trainer.config.catalogue import read_shipped, shipped_configs, shipped_file
from nnunet_vit_trainer.config.reading import load_config
from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.plans.derive import architecture_of
from vit_backbone import MODEL_CONFIGS, available_heads, resolve_backbone

OLD = {"linear", "recommended", "segformer", "unetr", "unetr_light"}
TINY = {"recommended_tiny", "segformer_tiny", "unetr_tiny"}
FAMILIES = {
    *(f"recommended_{family}_{s}" for family in ("dinov2", "dinov3") for s in ("small", "base")),
    *(f"recommended_{family}_large" for family in ("dinov2", "dinov3")),
    *(f"recommended_retfound_{which}" for which in ("cfp", "oct", "dinov2")),
    "recommended_meddinov3",
    "recommended_visionfm_fundus",
}


def read(name):
    """Read a shipped config, and check it where its head is installed."""
    shipped = read_shipped(name)
    if shipped.head not in available_heads():
        pytest.skip(f"{shipped.head} is not installed")
    return shipped, load_config(name)


def numbers(said):
    return [float(number) for number in re.findall(r"(?<![\w.])\d[\d.]*(?= |$)", said)]


def test_there_is_one_for_each_family_and_the_older_names_go_on():
    assert set(shipped_configs()) == OLD | TINY | FAMILIES


@pytest.mark.parametrize("name", shipped_configs())
def test_its_head_says_command_weights_and_costs(name):
    text = shipped_file(name).read_text(encoding="ascii")
    head = text.partition("\nmodel:\n")[0].splitlines()
    assert all(line.startswith("# ") for line in head)
    assert max(map(len, text.splitlines())) <= 100
    device = " -device cpu" if name in TINY else ""
    assert head.count(f"#   nnUNetv2_train_vit DATASET 2d FOLD --config {name}{device}") == 1
    filled_in = f"#   nnUNetv2_configs_vit --write {name} --checkpoint_path FILE"
    assert head.count(filled_in) == (name not in TINY)
    notes = [line.split()[1] for line in head if re.match(r"# [A-Z]\w+: ", line)]
    assert notes == ["Backbone:", "Weights:", "Licence:", "Size:", "GFLOP:", "Memory:"]


@pytest.mark.parametrize("name", shipped_configs())
def test_its_weights_come_from_where_it_says(name):
    """A file that is no hub's is named: DINOv3's own would be taken for MedDINOv3's, unsaid."""
    shipped, config = read(name)
    model = config.model
    if shipped.weights == "none":
        assert model.pretrained is False
        return
    assert shipped.weights in ("open", "gated", "file")
    assert model.pretrained is None
    assert bool(model.checkpoint_path) == (shipped.weights == "file")
    family = MODEL_CONFIGS[model.backbone]
    assert family["on_hub"] or model.checkpoint_path
    assert Path(model.checkpoint_path).name in shipped.text.partition("\nmodel:\n")[0]
    licences = {"dinov2": "Apache-2.0", "dinov3": "DINOv3", "retfound": "CC BY-NC"}
    licences["visionfm"] = "research only"
    if name != "recommended_meddinov3" and model.backbone in licences:
        assert shipped.licence.startswith(licences[model.backbone])


@pytest.mark.parametrize("name", shipped_configs())
def test_it_builds_and_costs_what_it_says(name):
    """Recounted without memory; GiB are counted by benchmarks/config_costs.py alone."""
    shipped, config = read(name)
    asked = resolve_backbone(config.model.backbone, config.model.backbone_size)
    with torch.device("meta"):
        network = build_network(3, 3, **architecture_of(config, asked)["arch_kwargs"]).eval()
    network.to("meta")  # DINOv3's positions are computed by numpy
    everything = list(network.parameters())
    trained = [parameter for parameter in everything if parameter.requires_grad]
    counted = [sum(p.numel() for p in some) / 1e6 for some in (everything, trained)]
    said = numbers(shipped.size.replace("all trained", f"{counted[0]} M trained"))
    assert said == pytest.approx(counted, rel=0.01)
    for side, gflop in zip((256, 512), numbers(shipped.gflop)[::2], strict=True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, side, side, device="meta"))
        assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.01)
    assert len(numbers(shipped.memory)) == 4
    if asked != "test_vit":
        letter, patch = shipped.backbone.removeprefix("ViT-").split("/")
        assert f"vit_{dict(S='small', B='base', L='large')[letter]}_patch{patch}_" in asked


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_recommended_ones_differ_in_the_backbone_alone(name):
    _, config = read(name)
    recommended = load_config("recommended")
    assert config.model.decoder.options() == recommended.model.decoder.options()
    assert (config.lora, config.train) == (recommended.lora, recommended.train)
    assert (config == recommended) == (name == "recommended_dinov3_large")


def test_the_wheel_holds_them():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    (package,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    folder = Path(__file__).parents[1] / package / "config" / "shipped"
    assert shipped_configs() == sorted(file.stem for file in folder.glob("*.yaml"))
