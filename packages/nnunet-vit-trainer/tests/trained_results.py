"""What a finished training leaves, written without training; and zips that were tampered with.

The fixtures ``exporter`` and ``trained_folder`` are made of it.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_vit_trainer.checkpoints.base_weights import load_base_weights
from nnunet_vit_trainer.checkpoints.content import trained_state
from nnunet_vit_trainer.checkpoints.model_folder import network_of
from nnunet_vit_trainer.config.schema import ViTLoRAConfig, ViTModelConfig, ViTnnUNetConfig
from nnunet_vit_trainer.plans.derive import derive_plans
from vit_backbone import create_backbone, sha256_of

DATASET = "Dataset900_ViTDemo"
TRAINER = "nnUNetTrainerNoDeepSupervision_vit"
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "NaturalImage2DIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {"mean": 127.0, "std": 74.0}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [32, 32],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "batch_dice": True,
            **{
                f"resampling_fn_{of}{end}": value
                for of in ("data", "seg", "probabilities")
                for end, value in (("", "resample_data_or_seg_to_shape"), ("_kwargs", RESAMPLING))
            },
        }
    },
}
DATASET_JSON = {
    "channel_names": {"0": "gray"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "file_ending": ".png",
    "numTraining": 1,
}


def write_weights(home):
    """Write the file of base weights that `write_results` names."""
    torch.manual_seed(0)
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), home / "vit.pth")
    return home


def write_results(home, name="mine", weights=True, in_chans=None, **config):
    """Write what a finished training leaves, without training: random adapters and head.

    Without ``in_chans``, of the weights, plans are as 0.1.0 wrote them: the patch embedding trains.
    """
    options = {"model": {}, "lora": {}} | config
    model = ViTModelConfig(model_path="linear", backbone="test_vit", **options["model"])
    base = {"file": str(home / "vit.pth"), "sha256": sha256_of(home / "vit.pth")}
    plans = derive_plans(
        PLANS,
        "2d",
        name,
        ViTnnUNetConfig(model=model, lora=ViTLoRAConfig(**options["lora"])),
        {"asked": "test_vit", "name": "test_vit", "options": {"img_size": 160}}
        | ({"in_chans": in_chans} if in_chans else {}),
        base if weights else None,
    )
    folder = home / "results" / DATASET / f"{TRAINER}__nnUNetPlans_{name}__2d"
    fold = folder / "fold_0"
    (fold / "validation").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (folder / "dataset_fingerprint.json").write_text("{}")
    summary = {"metric_per_case": [{"reference_file": str(home / "labels" / "case_1.png")}]}
    (fold / "validation" / "summary.json").write_text(json.dumps(summary))
    (fold / "debug.json").write_text(json.dumps({"output_folder": str(fold)}))
    torch.manual_seed(1)
    network = network_of(plans, DATASET_JSON)
    load_base_weights(network, base)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": []},
        "logging": {"mean_fg_dice": [np.float32(0.5)], "lrs": [1e-3]},
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": "2d",
            "fold": 0,
            "dataset_json": DATASET_JSON,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
        "rebuilt_from": None,
    }
    torch.save(content, fold / "checkpoint_final.pth")
    small = content | {"network_weights": trained_state(network), "rebuilt_from": base}
    torch.save(small, fold / "checkpoint_best.pth")
    return folder


def weights_of(folder, name="checkpoint_final.pth"):
    return torch.load(folder / "fold_0" / name, weights_only=False)["network_weights"]


def logits(folder, name="checkpoint_final.pth"):
    plans = json.loads((folder / "plans.json").read_text())
    network = network_of(plans, DATASET_JSON).eval()
    network.load_state_dict(weights_of(folder, name))
    torch.manual_seed(2)
    with torch.no_grad():
        return network(torch.randn(2, 1, 40, 56))


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def rewrite(source, target, **replaced):
    """Copy a zip with other contents for the files that end as named."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            key = Path(name).name.replace(".", "_")
            new.writestr(name, replaced.get(key, old.read(name)))
    return target


def call(command, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nnUNetv2", *map(str, arguments)])
        command()
