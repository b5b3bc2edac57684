"""Make release_0_1_0/: a model that version 0.1.0 trained, and what it predicted with it.

    git checkout 2a2a171 && python reference_release_0_1_0.py WORK_FOLDER

A grey image, a UNETR and LoRA: what later versions build anew without being asked to. The weights
are rounded to bfloat16 before the export, so that the file packs to half its size.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

TRAINER = "nnUNetTrainerNoDeepSupervision_vit"
CONFIG = {
    "model": {
        "model_path": "unetr",
        "backbone": "test_vit",
        "decoder": {"decoder_channels": [16, 16, 8, 8, 8]},
    },
    "train": {
        "num_epochs": 12,
        "num_iterations_per_epoch": 100,
        "num_val_iterations_per_epoch": 1,
        "batch_size": 2,
        "patch_size": [56, 40],
        "initial_lr": 0.005,
    },
}


def main() -> None:
    """Train, export, predict, and write the two files beside this one."""
    home = Path(sys.argv[1]).resolve()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(home / name)
        (home / name).mkdir(parents=True)
    os.environ["nnUNet_def_n_proc"] = "1"
    import torch
    import yaml

    from nnunet_vit_trainer.demo.data import write_dataset
    from nnunet_vit_trainer.export import export_vit
    from nnunet_vit_trainer.run import run_training_vit
    from vit_backbone import create_backbone

    data = write_dataset(home / "raw", num_train=10, num_test=1, size=64)
    subprocess.run(
        ["nnUNetv2_plan_and_preprocess", "-d", "900", "-c", "2d", "-np", "1"], check=True
    )
    torch.manual_seed(0)
    weights = home / "weights.pth"
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), weights)
    CONFIG["model"]["checkpoint_path"] = str(weights)
    (home / "release.yaml").write_text(yaml.safe_dump(CONFIG))
    os.environ["nnUNet_n_proc_DA"] = "0"
    folder = run_training_vit("900", "2d", 0, home / "release.yaml", device="cpu")
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    for tensor in checkpoint["network_weights"].values():
        tensor.copy_(tensor.bfloat16())
    torch.save(checkpoint, folder / "checkpoint_final.pth")
    export_vit(folder.parent, home / "whole.zip")
    predict = f"nnUNetv2_predict -d 900 -c 2d -f 0 -tr {TRAINER} -p nnUNetPlans_release -device cpu"
    options = ["--save_probabilities", "-npp", "0", "-nps", "0"]
    paths = ["-i", str(data / "imagesTs"), "-o", str(home / "predicted")]
    subprocess.run([*predict.split(), *options, *paths], check=True)

    out = Path(__file__).parent / "release_0_1_0"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with (
        zipfile.ZipFile(home / "whole.zip") as whole,
        zipfile.ZipFile(out / "model.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
    ):
        for name in whole.namelist():
            if not name.endswith(".png"):
                packed.writestr(name, whole.read(name))
    probabilities = np.load(home / "predicted" / "demo_ts_000.npz")["probabilities"]
    np.savez_compressed(out / "predicted.npz", probabilities=probabilities[:, 0])


if __name__ == "__main__":
    main()
