"""Adapter checkpoints in a real training: written, resumed, validated. In this process.

The final validation is left out (test_integration.py has it): it only records what it would use.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml

from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import run_training_vit
from vit_backbone import UserError, create_backbone

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

FROZEN = "backbone.blocks.0.attn.qkv.base_layer.weight"
TRAINED = "backbone.blocks.0.attn.qkv.lora_B.default.weight"


@pytest.fixture(scope="module")
def validated():
    """The weights of every final validation that would have run."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    seen = []

    def record(trainer, *_):
        state = trainer.network.state_dict()
        seen.append({name: tensor.clone() for name, tensor in state.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnUNetTrainer, "perform_actual_validation", record)
        yield seen


def train(config, **options):
    return run_training_vit(DATASET, "2d", 0, config, device="cpu", **options)


@pytest.fixture(scope="module")
def trained(home, validated, tmp_path_factory):
    """Two epochs of LoRA under the linear head; the config and the fold's folder."""
    folder = tmp_path_factory.mktemp("adapter")
    weights = folder / "weights.pth"
    torch.manual_seed(0)
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), weights)
    model = {"model_path": "linear", "backbone": "test_vit", "checkpoint_path": str(weights)}
    recipe = {
        "checkpoint": "adapter",
        "ema": 0.5,
        "num_epochs": 2,
        "num_iterations_per_epoch": 2,
        "num_val_iterations_per_epoch": 1,
        "batch_size": 2,
        "patch_size": [32, 32],
    }
    config = folder / "adapter.yaml"
    config.write_text(yaml.safe_dump({"model": model, "train": recipe}))
    return config, train(config)


def read(file):
    return torch.load(file, weights_only=False)


def edit(config, section, **values):
    content = yaml.safe_load(config.read_text())
    content[section] |= values
    config.write_text(yaml.safe_dump(content))


def test_checkpoint_best_holds_what_was_trained_and_checkpoint_final_is_whole(trained):
    _, folder = trained
    best, final = (read(folder / f"checkpoint_{name}.pth") for name in ("best", "final"))
    assert FROZEN not in best["network_weights"]
    assert TRAINED in best["network_weights"]
    assert len(best["rebuilt_from"]["sha256"]) == 64
    assert FROZEN in final["network_weights"]
    assert final["rebuilt_from"] is None
    # Adapted to one channel, it trains under LoRA.
    assert "backbone.patch_embed.proj.weight" in best["network_weights"]
    assert len(best["optimizer_state"]["state"]) == len(best["network_weights"])


def test_validation_with_best_needs_no_file_beside_the_whole_final(trained, validated):
    config, folder = trained
    weights = Path(yaml.safe_load(config.read_text())["model"]["checkpoint_path"])
    weights.rename(weights.with_suffix(".away"))
    train(config, only_run_validation=True, val_with_best=True)
    weights.with_suffix(".away").rename(weights)
    best, final = (
        read(folder / f"checkpoint_{n}.pth")["network_weights"] for n in ("best", "final")
    )
    assert torch.equal(validated[-1][TRAINED], best[TRAINED])
    assert torch.equal(validated[-1][FROZEN], final[FROZEN])


def test_a_killed_run_resumes_from_its_adapters_and_the_weight_file(trained):
    """The last test of this file: it replaces the run."""
    config, folder = trained
    final = read(folder / "checkpoint_final.pth")["network_weights"]
    (folder / "checkpoint_final.pth").unlink()
    (folder / "checkpoint_best.pth").rename(folder / "checkpoint_latest.pth")
    weights = Path(yaml.safe_load(config.read_text())["model"]["checkpoint_path"])
    content = weights.read_bytes()
    edit(config, "train", num_epochs=3)

    weights.unlink()
    with pytest.raises(UserError, match=r"leaves out are not at .*weights\.pth .*checkpoint_path"):
        train(config, continue_training=True)
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), weights)
    with pytest.raises(UserError, match="has sha256"):
        train(config, continue_training=True)
    weights.unlink()
    moved = weights.with_name("moved.pth")
    moved.write_bytes(content)
    edit(config, "model", checkpoint_path=str(moved))
    train(config, continue_training=True)

    after = read(folder / "checkpoint_final.pth")
    assert after["current_epoch"] == 3
    assert torch.equal(after["network_weights"][FROZEN], final[FROZEN])
    plans = json.loads((folder.parent / "plans.json").read_text())
    assert plans["vit"]["weights"]["file"] == str(moved)
