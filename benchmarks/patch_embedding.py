"""Does a patch embedding that was adapted to other channels gain by training? docs/recipe.md.

    python benchmarks/patch_embedding.py WORK_FOLDER [--iterations 200] [--seeds 3] [--side 140]

The ViT-S/14 in DINOv2 layout under a linear head, frozen and with LoRA, its patch embedding kept
as it was adapted or trained at a hundredth of the backbone's rate. Grey: Dataset102. Two channels:
Dataset101 without its green one. Fold 0, in one process, one thread; Dice is the mean over the
classes, pooled over the validation cases, without mirroring. Prints a line per run, then a table.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from statistics import mean, stdev
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from quality import DATASETS, ROOT, prepare, set_environment

TWO_CHANNELS = "Dataset103_HENucleiRB"


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=140)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    set_environment(work)
    os.environ["nnUNet_results"] = str(work / "results")
    torch.set_num_threads(1)
    shared = ROOT.parent / "shared"
    data = two_channels(shared / "data", work / "data")
    DATASETS[103] = TWO_CHANNELS
    prepare(102, shared / "data", work)
    prepare(103, data, work)
    os.environ["nnUNet_n_proc_DA"] = "0"  # which nnU-Net's planner does not take
    weights = shared / "weights/vit_small_patch14_dinov2_layout.fp16.safetensors"
    found: dict[tuple[int, str, bool], list[float]] = {}
    for seed, dataset, tune, trains in itertools.product(
        range(arguments.seeds), (102, 103), ("frozen", "lora"), (False, True)
    ):
        dice, seconds = run(
            dataset, tune, trains, seed, weights, arguments.iterations, arguments.side
        )
        found.setdefault((dataset, tune, trains), []).append(dice)
        print(
            f"{dataset} {tune} trains={trains} seed={seed}: {dice:.4f} {seconds:.0f} s", flush=True
        )
    print("\n| data | tune | kept as adapted | trains at 1/100 |\n|---|---|---|---|")
    for dataset, tune in itertools.product((102, 103), ("frozen", "lora")):
        cells = [spread(found[dataset, tune, trains]) for trains in (False, True)]
        print(f"| {DATASETS[dataset]} | {tune} | {cells[0]} | {cells[1]} |")


def spread(values: list[float]) -> str:
    """Write mean and standard deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def two_channels(source: Path, target: Path) -> Path:
    """Write Dataset101 anew without its green channel, in nnU-Net's raw format."""
    old, new = source / DATASETS[101], target / TWO_CHANNELS
    if new.is_dir():
        return target
    (new / "imagesTr").mkdir(parents=True)
    shutil.copytree(old / "labelsTr", new / "labelsTr")
    shutil.copy(old / "splits_final.json", new)
    for file in sorted((old / "imagesTr").iterdir()):
        red, _, blue = Image.open(file).convert("RGB").split()
        for number, channel in enumerate((red, blue)):
            channel.save(new / "imagesTr" / file.name.replace("_0000.png", f"_{number:04}.png"))
    text = (old / "dataset.json").read_text()
    (new / "dataset.json").write_text(with_channels(text))
    return target


def with_channels(dataset_json: str) -> str:
    """Name the two channels."""
    return json.dumps(json.loads(dataset_json) | {"channel_names": {"0": "red", "1": "blue"}})


def run(
    dataset: int, tune: str, trains: bool, seed: int, weights: Path, iterations: int, side: int
) -> tuple[float, float]:
    """Train once, and return the Dice and the seconds that the iterations took."""
    from nnunet_vit_trainer.training.trainer import nnUNetTrainerNoDeepSupervision_vit

    class Trainer(nnUNetTrainerNoDeepSupervision_vit):
        embedding_trains: ClassVar[bool] = trains

        def configure_optimizers(self):  # noqa: ANN202 - nnU-Net's
            embedding = self.network.backbone.patch_embed
            embedding.requires_grad_(self.embedding_trains)
            return super().configure_optimizers()

    np.random.seed(seed)
    torch.manual_seed(seed)
    plans, dataset_json = derived(dataset, tune, weights, iterations, side)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(plans, "2d", 0, dataset_json, torch.device("cpu"))
        trainer.on_train_start()
        start = time.perf_counter()
        for epoch in range(trainer.num_epochs):
            trainer.current_epoch = epoch
            trainer.on_train_epoch_start()
            for _ in range(trainer.num_iterations_per_epoch):
                trainer.train_step(next(trainer.dataloader_train))
        seconds = time.perf_counter() - start
        return pooled_dice(trainer, len(dataset_json["labels"])), seconds


def derived(
    dataset: int, tune: str, weights: Path, iterations: int, side: int
) -> tuple[dict, dict]:
    """Derive the plans of one run."""
    from nnunet_vit_trainer.config.schema import ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
    from nnunet_vit_trainer.launch.backbones import find_backbone
    from nnunet_vit_trainer.plans.derive import derive_plans

    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASETS[dataset]
    config = ViTnnUNetConfig(
        model=ViTModelConfig(
            model_path="linear",
            backbone="dinov2",
            backbone_size="small",
            checkpoint_path=str(weights),
            tune=tune,
        ),
        train=ViTTrainConfig(
            initial_lr=0.002,
            num_epochs=8,
            num_iterations_per_epoch=iterations // 8,
            patch_size=[side, side],
            batch_size=3,
        ),
    )
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    backbone, recorded = find_backbone(config.model, None)
    plans = derive_plans(plans, "2d", "embedding", config, backbone, recorded)
    return plans | {"continue_training": False}, json.loads((folder / "dataset.json").read_text())


def pooled_dice(trainer: object, classes: int) -> float:
    """Predict the validation cases, and return the mean Dice of the foreground classes."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, None,
        trainer.dataset_json, type(trainer).__name__, None,
    )  # fmt: skip
    trainer.network.eval()
    _, cases = trainer.get_tr_and_val_datasets()
    counts = torch.zeros(3, classes)
    for name in cases.identifiers:
        image, truth, _, _ = cases.load_case(name)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:]).float())
        predicted, truth = logits.argmax(0), torch.from_numpy(truth[0]).long()
        for label in range(classes):
            of_both = [(predicted == label), (truth == label)]
            for row, mask in enumerate((of_both[0] & of_both[1], *of_both)):
                counts[row, label] += mask.sum()
    return (2 * counts[0] / (counts[1] + counts[2]))[1:].mean().item()


if __name__ == "__main__":
    main()
