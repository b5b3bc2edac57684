"""Whether training a backbone on one's images without labels helps where labels are few.

    PYTHONPATH=LIGHTLY python benchmarks/adapt.py WORK_FOLDER [--runs NAME ...] [--seeds 0 1 2]
        [--steps 100] [--minutes 5] [--data FOLDER] [--weights FILE]

Of the brain slices (data set 102, fold 0) the training slices are given without labels; LoRA (r 8
on qkv) of the ViT-S/14 trains on them by an objective of adapt_objectives.py. A run is named by
objective, teacher and learning rate: masked_frozen_1e-4, dino_ema_1e-3. After so many steps the
probe's linear fit (docs/probing.md) on few labelled slices is scored

- on the training slices that it was not fitted on, by which settings are to be chosen, and
- on the validation slices, which no run has seen.

Each is given for DRAWS draws of the labelled slices, the same for all runs, and for each strength
of the fit. Records go to benchmarks/results/adapt.json (adapt_report.py makes a table of it); what
is there is not run again. A run that was stopped after so many minutes goes on from its file in the
work folder. ``lightly`` is no dependency of the project:
``uv pip install --no-deps --target LIGHTLY lightly lightly_utils aenum surface-distance``.
"""

import argparse
import copy
import itertools
import json
import random
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from adapt_objectives import OBJECTIVES, Encoder
from lightly.models.utils import update_momentum
from quality import DATA, DATASETS, ROOT, WEIGHTS, prepare, set_environment
from torch.nn.utils import clip_grad_norm_

from nnunet_vit_trainer.probing.crossing.classify import (
    MOST_TRAINED,
    fit_linear,
    patches_of,
)
from nnunet_vit_trainer.probing.crossing.scores import (
    confusion_of,
    dice_of_pixels,
    shares_of_pixels,
)
from nnunet_vit_trainer.probing.data import Data, read_data
from nnunet_vit_trainer.probing.patches.shares import shares_of
from nnunet_vit_trainer.probing.patches.tokens import tokens_of
from vit_backbone import create_backbone, enable_lora
from vit_backbone.segmentation.geometry import pad_to_patches

RECORD = ROOT / "benchmarks" / "results" / "adapt.json"
DATASET, BLOCKS = 102, (2, 5, 8, 11)
SHOTS, DRAWS = (3, 6), 5
STRENGTHS = (0.001, 0.01, 0.1)  # of the fit; on the base features 0.01 is best by far
TEACHERS = {"frozen": 1.0, "ema": 0.99}
BATCH, WARM_UP = 2, 10
_PARTS = ("student", "teacher", "objective", "optimizer", "schedule")
NONE = "none"


def main() -> None:
    """Run and record what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", nargs="+", type=int, default=[100])
    parser.add_argument("--minutes", type=float, default=1e9, help="then stop, to be gone on with")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    set_environment(arguments.work.resolve())
    prepare(DATASET, arguments.data, arguments.work.resolve())
    data = read_data(DATASETS[DATASET], "2d", "nnUNetPlans", 100, 0)
    if NONE not in recorded():
        vit, _, _ = create_backbone("dinov2", "small", arguments.weights, in_chans=1)
        write_record(NONE, {"0": probed(vit.eval(), data)})
    deadline = time.monotonic() + 60 * arguments.minutes
    cases = {*data.folds[0].train}
    images = torch.stack([torch.from_numpy(t.image) for t in data.tiles if t.case in cases])
    for seed, name in itertools.product(arguments.seeds, arguments.runs):
        key = f"{name}_{seed}"
        wanted = {step for step in arguments.steps if str(step) not in recorded().get(key, {})}
        if not wanted:
            continue
        run = Adaptation(name, images, seed, arguments.weights)
        file = arguments.work / f"{key}.part"
        if file.is_file():
            run.load_state_dict(torch.load(file, weights_only=False))
        while run.steps < max(wanted) and time.monotonic() < deadline:
            run.step()
            if run.steps in wanted:
                found = run.said() | probed(run.student.vit.eval(), data)
                print(key, run.steps, found, flush=True)
                write_record(key, recorded().get(key, {}) | {str(run.steps): found})
        save(run, file)
        if time.monotonic() > deadline:
            print(key, run.steps, "interrupted", flush=True)
            return


class Adaptation:
    """A backbone in training on images without labels.

    Args:
        name: objective, teacher and learning rate, with ``_`` between them.
        images: (N, C, H, W).
        seed: of everything that is drawn.
        weights: of the ViT-S/14.
    """

    def __init__(self, name: str, images: torch.Tensor, seed: int, weights: Path) -> None:
        objective, self.teaching, rate = name.split("_")
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)  # batchgenerators draw by it
        vit, _, _ = create_backbone("dinov2", "small", weights, in_chans=1)
        enable_lora(vit, lora_dropout=0.0)
        vit.patch_embed.requires_grad_(False)
        self.images = pad_to_patches(images, vit.patch_embed.patch_size)
        self.student = Encoder(vit, BLOCKS)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.objective = OBJECTIVES[objective](vit.embed_dim)
        parameters = [*self.student.parameters(), *self.objective.parameters()]
        self.trained = [p for p in parameters if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=float(rate), weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LinearLR(
            self.optimizer, 1 / WARM_UP, total_iters=WARM_UP
        )
        self.losses: list[float] = []
        self.seconds = 0.0

    @property
    def steps(self) -> int:
        """How many were made."""
        return len(self.losses)

    def step(self) -> None:
        """Train on a batch of images, mirrored by chance."""
        begun = time.process_time()
        batch = self.images[torch.randperm(len(self.images))[:BATCH]]
        if torch.rand(()) < 0.5:
            batch = batch.flip(-1)
        loss = self.objective(self.student.train(), self.teacher, batch)
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.trained, 3.0)
        self.optimizer.step()
        self.schedule.step()
        update_momentum(self.student, self.teacher, TEACHERS[self.teaching])
        self.losses.append(loss.item())
        self.seconds += time.process_time() - begun

    def said(self) -> dict[str, float]:
        """Return the mean loss of the last steps, and the seconds of one core until now."""
        return {"loss": round(mean(self.losses[-25:]), 4), "seconds": round(self.seconds)}

    def state_dict(self) -> dict[str, Any]:
        """Return what a killed run goes on from."""
        return {name: getattr(self, name).state_dict() for name in _PARTS} | {
            "numbers": (self.losses, self.seconds),
            "random": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where a run was."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.losses, self.seconds = state["numbers"]
        ours, numpys, pythons = state["random"]
        torch.set_rng_state(ours)
        np.random.set_state(numpys)
        random.setstate(pythons)


def save(run: Adaptation, file: Path) -> None:
    """Write a run down, whole."""
    unfinished = file.with_suffix(".new")
    torch.save(run.state_dict(), unfinished)
    unfinished.replace(file)


def probed(vit: Any, data: Data) -> dict[str, Any]:
    """Score linear probes of few labelled slices: of each strength of the fit, the draws' Dice."""
    side = vit.patch_embed.patch_size[0]
    tokens = tokens_of(vit, None, data.tiles, BLOCKS, "cpu").tokens
    features = [of.reshape(*of.shape[:2], -1) for of in tokens]
    shares = [shares_of(tile.labels, side, data.labels) for tile in data.tiles]
    at = {tile.case: i for i, tile in enumerate(data.tiles)}
    found: dict[str, Any] = {}
    for shots, draw, strength in itertools.product(SHOTS, range(DRAWS), STRENGTHS):
        few = drawn(data, shots, draw)
        columns = [[of[at[case]] for case in few] for of in (features, *zip(*shares, strict=True))]
        fitted = patches_of(*columns, MOST_TRAINED, np.random.default_rng(draw))
        probe = fit_linear(fitted, strength)
        weights = np.maximum(fitted.frequencies, 1e-6) ** -0.5  # as docs/probing.md
        others = [case for case in data.folds[0].train if case not in few]
        for part, cases in (("train", others), ("val", data.folds[0].test)):
            confusion = np.zeros((data.labels, data.labels), dtype=np.int64)
            for i in (at[case] for case in cases):
                truth = data.tiles[i].labels
                pixels = shares_of_pixels(probe.shares(features[i]), side, truth.shape) * weights
                confusion += confusion_of(truth, pixels.argmax(axis=-1), data.labels)
            dice = dice_of_pixels(confusion, data.positions, list(data.positions))
            of_strength = found.setdefault(f"{part}_{shots}", {}).setdefault(str(strength), [])
            of_strength.append(round(mean(dice.values()), 4))
    return found


def drawn(data: Data, shots: int, seed: int) -> list[str]:
    """Draw so many training slices; fewer are among more, and the fewest hold all classes."""
    rng = np.random.default_rng(seed)
    labels = {tile.case: {*np.unique(tile.labels)} for tile in data.tiles}
    while True:
        cases = rng.permutation(data.folds[0].train).tolist()
        if {*range(data.labels)} <= set().union(*(labels[case] for case in cases[: SHOTS[0]])):
            return cases[:shots]


def recorded() -> dict[str, Any]:
    """Read the record."""
    return json.loads(RECORD.read_text()) if RECORD.is_file() else {}


def write_record(key: str, found: dict[str, Any]) -> None:
    """Add a run to the record, one line each."""
    record = dict(sorted((recorded() | {key: found}).items()))
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
