"""Whether a backbone that adapt.py adapted is better to fine-tune, where labels are few.

    PYTHONPATH=LIGHTLY python benchmarks/adapt_tune.py WORK_FOLDER --run masked_ema_1e-4
        [--seeds 0 1 2] [--shots 3] [--iterations 60] [--weights FILE]

Behind adapt.py, whose unfinished runs it reads: LoRA is merged into the weights, which are written
as a file that ``model.checkpoint_path`` takes. A linear head with LoRA of its own (r 8, 1e-3) then
trains on few labelled slices from that file, and from the original; both see the same slices in the
same order. The Dice of the validation slices, pooled, goes to benchmarks/results/adapt_tuned.json.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from adapt import BLOCKS, DATASET, NONE, drawn
from adapt_objectives import Encoder, changed
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from quality import DATASETS, ROOT, WEIGHTS, set_environment
from safetensors.torch import save_file

from nnunet_vit_trainer.probing.crossing.scores import confusion_of, dice_of_pixels
from nnunet_vit_trainer.probing.data import Data, read_data
from nnunet_vit_trainer.probing.patches.tiles import UNKNOWN
from vit_backbone import create_backbone, disable_lora, enable_lora, find_head

RECORD = ROOT / "benchmarks" / "results" / "adapt_tuned.json"
RATE, BATCH = 1e-3, 2


def main() -> None:
    """Fine-tune and record what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", required=True, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    set_environment(arguments.work.resolve())
    data = read_data(DATASETS[DATASET], "2d", "nnUNetPlans", 100, 0)
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    for seed in arguments.seeds:
        few = drawn(data, arguments.shots, seed)
        for name in (NONE, arguments.run):
            key = f"{name}_{arguments.shots}_{arguments.iterations}_{seed}"
            if key in record:
                continue
            file = arguments.weights
            if name != NONE:
                file = merged(arguments.work / f"{name}_{seed}.part", arguments.weights)
            record[key] = round(tuned(file, data, few, arguments.iterations, seed), 4)
            print(key, record[key], flush=True)
            RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def merged(part: Path, weights: Path) -> Path:
    """Merge the student's LoRA into the weights; return the file with them."""
    vit, _, _ = create_backbone("dinov2", "small", weights)
    enable_lora(vit)
    state = torch.load(part, weights_only=False)["student"]
    adapters = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    _, unknown = Encoder(vit, BLOCKS).load_state_dict(adapters, strict=False)
    if unknown or not adapters:
        raise ValueError(f"{part} holds other adapters: {unknown[:3]}")
    disable_lora(vit)
    file = part.with_suffix(".safetensors")
    save_file({name: of.contiguous() for name, of in vit.state_dict().items()}, file)
    return file


def tuned(file: Path, data: Data, cases: list[str], iterations: int, seed: int) -> float:
    """Fine-tune from a weight file, and return the validation slices' Dice."""
    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(seed)
    network = find_head("linear")(
        "dinov2", "small", num_classes=data.labels, checkpoint_path=file, in_channels=1
    )
    tiles = {tile.case: tile for tile in data.tiles}
    images = torch.stack([torch.from_numpy(tiles[case].image) for case in cases])
    labels = torch.stack([torch.from_numpy(tiles[case].labels)[None].long() for case in cases])
    loss_of = DC_and_CE_loss(
        {"batch_dice": True, "do_bg": False, "ddp": False}, {}, ignore_label=UNKNOWN
    )
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, iterations, power=0.9)
    for _ in range(iterations):
        batch = torch.randint(len(cases), (BATCH,))
        image, truth = changed(images[batch]), labels[batch]
        if torch.rand(()) < 0.5:
            image, truth = image.flip(-1), truth.flip(-1)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.train()(image)
        loss = loss_of(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return dice_of(network.eval(), data)


@torch.inference_mode()
def dice_of(network: torch.nn.Module, data: Data) -> float:
    """Return the mean Dice over classes of the pixels of all validation slices."""
    confusion = np.zeros((data.labels, data.labels), dtype=np.int64)
    for tile in data.tiles:
        if tile.case in data.folds[0].test:
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(torch.from_numpy(tile.image)[None])
            confusion += confusion_of(tile.labels, logits[0].argmax(0).numpy(), data.labels)
    return mean(dice_of_pixels(confusion, data.positions, list(data.positions)).values())


if __name__ == "__main__":
    main()
