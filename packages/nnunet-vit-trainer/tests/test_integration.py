"""Both heads through the real commands: train, resume, validate, predict with stock nnU-Net.

The commands that import nnU-Net run in this process where they are ours (each import costs
10-20 s) and in a fresh one where a user's fresh process is the point: prediction.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from agreement import masks_agree
from PIL import Image

from nnunet_vit_trainer.commands import train as train_command
from nnunet_vit_trainer.demo.data import DATASET
from nnunet_vit_trainer.launch.run import DEFAULT_TRAINER, run_training_vit
from nnunet_vit_trainer.results.training_log import read_training
from vit_backbone import UserError, create_backbone, find_head

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

HEADS = {
    "unetr": {"decoder_channels": [16, 16, 8, 8, 8]},
    "segformer": {"hidden_size": 16, "neck": "pyramid", "shortcut": True, "image_stem": True},
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module", params=sorted(HEADS))
def trained(request, home):
    """One epoch of a head on a LoRA-tuned ViT whose weights are then moved away."""
    head = request.param
    if importlib.util.find_spec(f"vit_heads_{head}") is None:
        pytest.skip(f"{head} is not installed")
    weights = home / f"{head}_weights.pth"
    torch.manual_seed(0)
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), weights)
    content = {
        "model": {
            "model_path": head,
            "backbone": "test_vit",
            "checkpoint_path": str(weights),
            "decoder": HEADS[head],
        },
        "train": {
            "num_epochs": 1,
            "num_iterations_per_epoch": 3,
            "num_val_iterations_per_epoch": 1,
            "batch_size": 2,
            "patch_size": [56, 40],
        },
    }
    config = home / f"my-{head}.yaml"
    config.write_text(yaml.safe_dump(content))
    folder = train(config, "--npz")
    weights.rename(weights.with_suffix(".away"))
    return config, folder


@pytest.fixture
def segformer(trained):
    """The one head, where one shows it."""
    if trained[0].stem != "my-segformer" and importlib.util.find_spec("vit_heads_segformer"):
        pytest.skip("segformer shows it")
    return trained


def train(config, *flags):
    """Call the training command in this process and return the fold's folder."""
    arguments = [DATASET, "2d", "0", "--config", str(config), "-device", DEVICE, *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nnUNetv2_train_vit", *arguments])
        train_command.train()
    plans = f"nnUNetPlans_{config.stem}"
    results = Path(os.environ["nnUNet_results"]) / DATASET
    return results / f"{DEFAULT_TRAINER}__{plans}__2d" / "fold_0"


def masks(folder):
    return {file.name: np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))}


def log_of(folder):
    """Return the newest training log."""
    return max(folder.glob("training_log*.txt"), key=lambda f: f.stat().st_mtime_ns).read_text()


def test_training_leaves_what_nnunet_leaves(trained):
    _, folder = trained
    assert (folder / "checkpoint_final.pth").is_file()
    assert list((folder / "validation").glob("*.npz"))
    dice = json.loads((folder / "validation" / "summary.json").read_text())
    assert 0 <= dice["foreground_mean"]["Dice"] <= 1
    plans = json.loads((folder.parent / "plans.json").read_text())
    assert list(plans["configurations"]) == ["2d"]
    assert plans["configurations"]["2d"]["batch_size"] == 2
    assert plans["configurations"]["2d"]["patch_size"] == [56, 40]
    assert len(plans["vit"]["weights"]["sha256"]) == 64
    assert f"sha256 {plans['vit']['weights']['sha256']}" in log_of(folder)
    assert read_training(folder).gibibytes > 0.1


def test_training_leaves_an_overlay_sheet_and_a_report(trained):
    _, folder = trained
    assert "WARNING" not in log_of(folder)
    assert Image.open(folder / "overlay.png").width == 1000
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2
    assert str(folder.parents[3]) not in page


def test_the_checkpoint_is_stock_nnunets(trained):
    _, folder = trained
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert any(".lora_B." in key for key in checkpoint["network_weights"])


def test_a_finished_run_resumes_for_more_epochs_without_the_pretrained_file(segformer):
    config, folder = segformer
    content = yaml.safe_load(config.read_text())
    content["train"]["num_epochs"] = 2
    config.write_text(yaml.safe_dump(content))
    before = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    train(config, "--c")
    after = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert (before["current_epoch"], after["current_epoch"]) == (1, 2)
    log = log_of(folder)
    assert "Epoch 1" in log
    assert "Epoch 0" not in log
    base = "backbone.blocks.0.attn.qkv.base_layer.weight"
    assert torch.equal(before["network_weights"][base], after["network_weights"][base])


def test_validation_alone_reads_no_pretrained_file(segformer, real_pools):
    config, folder = segformer
    validated = masks(folder / "validation")
    train(config, "--val")
    again = masks(folder / "validation")
    assert all(masks_agree(validated[name], again[name]) for name in validated)


def test_stock_prediction_in_a_fresh_process_equals_the_validation(trained, home, run, tmp_path):
    """Only nnUNet_results is set; no config, no pretrained file, no trainer path."""
    config, folder = trained
    validated = masks(folder / "validation")
    images = tmp_path / "images"
    images.mkdir()
    for name in validated:
        image = name.replace(".png", "_0000.png")
        (images / image).symlink_to(home / "raw" / DATASET / "imagesTr" / image)
    run(
        "nnUNetv2_predict",
        *("-d", DATASET, "-c", "2d", "-f", "0", "-tr", DEFAULT_TRAINER),
        *("-p", f"nnUNetPlans_{config.stem}", "-i", images, "-o", tmp_path / "named"),
        *("-device", DEVICE, "-npp", "0", "-nps", "0"),
        nnUNet_results=os.environ["nnUNet_results"],
    )
    outputs = ["named"]
    if config.stem == "my-unetr":
        outputs.append("folder")
        run(
            "nnUNetv2_predict_from_modelfolder",
            *("-m", folder.parent, "-f", "0", "-i", images, "-o", tmp_path / "folder"),
            *("-device", DEVICE, "-npp", "1", "-nps", "1"),
            nnUNet_results=os.environ["nnUNet_results"],
        )
    for output in outputs:
        predicted = masks(tmp_path / output)
        assert predicted.keys() == validated.keys()
        for name, mask in validated.items():
            assert masks_agree(predicted[name], mask), name


def test_another_config_of_the_same_name_is_refused(trained):
    config, _ = trained
    content = yaml.safe_load(config.read_text())
    content["model"]["decoder"] = {}
    other = config.parent / "other" / config.name
    other.parent.mkdir(exist_ok=True)
    other.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="holds results of another config"):
        run_training_vit(DATASET, "2d", 0, other, device=DEVICE, continue_training=True)


def test_an_edited_backbone_is_not_resumed(trained):
    config, _ = trained
    content = yaml.safe_load(config.read_text())
    content["model"]["backbone"] = "vit_tiny_patch16_224"
    other = config.parent / "edited" / config.name
    other.parent.mkdir(exist_ok=True)
    other.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="backbone was 'test_vit' and is now"):
        run_training_vit(DATASET, "2d", 0, other, device=DEVICE, continue_training=True)


def test_another_training_starts_from_an_nnunet_checkpoint(segformer):
    """-pretrained_weights: the adapters come along, the config's own weight file is not needed."""
    config, folder = segformer
    other = config.with_name(f"next-{config.name}")
    other.write_text(config.read_text())
    first = train(other, "-pretrained_weights", str(folder / "checkpoint_final.pth"))
    assert (first / "validation" / "summary.json").is_file()
    plans = json.loads((first.parent / "plans.json").read_text())
    assert plans["vit"]["weights"]["file"].endswith("checkpoint_final.pth")
    foreign = config.with_name("foreign.pth")
    torch.save({"network_weights": {}}, foreign)
    with pytest.raises(UserError, match="is not from a training of ours"):
        run_training_vit(DATASET, "2d", 1, other, device=DEVICE, pretrained_weights=str(foreign))


def test_impossible_options_are_refused_before_plans_are_written(trained):
    config, _ = trained
    content = yaml.safe_load(config.read_text())
    content["lora"] = {"target_modules": ["qvk"]}
    content["model"] |= {"checkpoint_path": "", "pretrained": False}
    other = config.with_name("wrong-target.yaml")
    other.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"\['qvk'\] match no linear layer"):
        run_training_vit(DATASET, "2d", 0, other, device=DEVICE)
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    assert not (preprocessed / "nnUNetPlans_wrong-target.json").exists()


def test_missing_weights_end_in_one_line_before_any_work(home, capsys, monkeypatch):
    """The shipped DINOv3 config, offline and without a file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "no_cache"))
    monkeypatch.setattr(
        sys,
        "argv",
        ["nnUNetv2_train_vit", "900", "2d", "0", "--config", "unetr", "-device", DEVICE],
    )
    with pytest.raises(SystemExit) as caught:
        train_command.train()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "vit_large_patch16_dinov3.lvd1689m" in error
    assert "checkpoint_path" in error
    assert not (home / "preprocessed" / DATASET / "nnUNetPlans_unetr.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7", "2d", "0"], "dataset 7 is not in"),
        ([DATASET, "3d_fullres", "0"], "no configuration '3d_fullres'"),
        ([DATASET, "2d", "first"], "fold 'first'"),
        ([DATASET, "2d", "7"], "fold 7: there are 5 splits"),
        ([DATASET, "2d", "0", "-p", "MyPlans"], "MyPlans.json"),
        ([DATASET, "2d", "0", "-tr", "nnUNetTrainer"], "-tr takes"),
        ([DATASET, "2d", "1", "--val"], "--val needs a finished training"),
        ([DATASET, "2d", "0", "--c", "--val"], "exclude each other"),
        ([DATASET, "2d", "0", "-num_gpus", "99"], "-num_gpus 99"),
    ],
)
def test_what_a_user_can_mend_gets_one_line(arguments, message, home, capsys, monkeypatch):
    if importlib.util.find_spec("vit_heads_unetr") is None:
        pytest.skip("unetr is not installed")
    monkeypatch.setattr(
        sys,
        "argv",
        ["nnUNetv2_train_vit", "--config", "unetr_tiny", "-device", DEVICE, *arguments],
    )
    with pytest.raises(SystemExit) as caught:
        train_command.train()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_head_without_deep_supervision_is_refused(home):
    config = home / "yardstick.yaml"
    config.write_text("model: {model_path: linear, backbone: test_vit, pretrained: false}")
    with pytest.raises(UserError, match="'linear' has no deep supervision"):
        run_training_vit(
            DATASET, "2d", 0, config, trainer_class_name="nnUNetTrainer_vit", device=DEVICE
        )


@pytest.mark.parametrize("head", sorted(HEADS))
def test_deep_supervision_trains_and_stock_prediction_gives_its_finest_output(
    head, home, run, tmp_path
):
    if importlib.util.find_spec(f"vit_heads_{head}") is None:
        pytest.skip(f"{head} is not installed")
    content = {
        "model": {
            "model_path": head,
            "backbone": "test_vit",
            "pretrained": False,
            "decoder": HEADS[head],
        },
        "train": {
            "num_epochs": 1,
            "num_iterations_per_epoch": 2,
            "num_val_iterations_per_epoch": 1,
            "batch_size": 2,
            "patch_size": [56, 40],
        },
    }
    config = home / f"deep-{head}.yaml"
    config.write_text(yaml.safe_dump(content))
    folder = run_training_vit(
        DATASET, "2d", 0, config, trainer_class_name="nnUNetTrainer_vit", device=DEVICE
    )
    assert folder.parent.name == f"nnUNetTrainer_vit__nnUNetPlans_deep-{head}_ds__2d"
    validated = masks(folder / "validation")
    (tmp_path / "images").mkdir()
    for name in validated:
        image = name.replace(".png", "_0000.png")
        (tmp_path / "images" / image).symlink_to(home / "raw" / DATASET / "imagesTr" / image)
    run(
        "nnUNetv2_predict",
        *("-d", DATASET, "-c", "2d", "-f", "0", "-tr", "nnUNetTrainer_vit"),
        *("-p", f"nnUNetPlans_deep-{head}_ds", "-i", tmp_path / "images", "-o", tmp_path / "out"),
        *("-device", DEVICE, "-npp", "0", "-nps", "0"),
        nnUNet_results=os.environ["nnUNet_results"],
    )
    predicted = masks(tmp_path / "out")
    assert all(masks_agree(predicted[name], mask) for name, mask in validated.items())


@pytest.mark.skipif("STRANGERS_HEAD" not in os.environ, reason="for nox -s stranger")
def test_a_strangers_head_is_trained_by_its_name(home):
    head = os.environ["STRANGERS_HEAD"]
    config = home / "strange.yaml"
    config.write_text(
        f"model: {{model_path: {head}, backbone: test_vit, pretrained: false, "
        "decoder: {width: 8}}\n"
        "train: {num_epochs: 1, num_iterations_per_epoch: 2, num_val_iterations_per_epoch: 1, "
        "batch_size: 2}\n"
    )
    folder = run_training_vit(DATASET, "2d", 0, config, device=DEVICE)
    assert (folder / "validation" / "summary.json").is_file()


@pytest.mark.gpu
def test_a_lora_step_of_dinov3_large_fits_a_small_card(home):
    """bfloat16, batch 2 at 512 px: within the 24 GB of a workstation's card."""
    pytest.importorskip("vit_heads_unetr", reason="unetr is not installed")
    from nnunet_vit_trainer.training.optimization import build_optimizer
    from nnunet_vit_trainer.training.step import training_step

    model = find_head("unetr")("dinov3", "large", num_classes=3, pretrained=False).cuda()
    optimizer = build_optimizer(model, initial_lr=1e-4, weight_decay=0)
    torch.cuda.reset_peak_memory_stats()
    image = torch.randn(2, 3, 512, 512, device="cuda")
    target = torch.zeros(2, 512, 512, dtype=torch.long, device="cuda")
    loss = torch.nn.functional.cross_entropy
    recipe = {"gradient_clip": 12.0, "amp_dtype": torch.bfloat16}
    begun = [training_step(model, loss, optimizer, [(image, target)], **recipe) for _ in range(6)]
    steps = [outcome.read() for outcome in begun]
    assert all(taken for _, taken in steps)
    assert steps[-1][0] < steps[0][0]
    assert torch.cuda.max_memory_allocated() < 24e9
