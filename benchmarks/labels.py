"""Train with few of the training cases, beside stock nnU-Net, and record what was reached.

    uv run --with surface-distance python benchmarks/labels.py WORK_FOLDER
        [--shares 10 25 50 100] [--runs NAME ...] [--datasets 101 102] [--seeds 0 1 2]
        [--iterations 400] [--device cpu] [--jobs 2] [--data FOLDER] [--weights FILE]

A run is as quality.py's, of fewer training cases: a share of fold 0's, always validated on all of
fold 0's validation cases. A seed draws one random order of the training cases and each share is
its beginning, so a smaller share lies within every larger one, and stock and ours of a seed see the
same images. Drawn at random, not evenly spaced: the spread over seeds then tells, too, what it
matters which slices of the specimen somebody has labelled. The shares are folds that
`nnUNetv2_compare_vit --curve_splits` would append to splits_final.json, so nnU-Net trains them as
it does any fold; its plans are those of all cases. 100 % is fold 0 itself.

Each run is of the same number of iterations, whatever its share, in epochs of 25 (two epochs where
there are fewer than 50). The number is part of what a run is recorded by, in
benchmarks/results/labels.json: runs of several lengths stand there beside each other. Recorded
runs are not trained again; the results of one work folder can be looked at by
`nnUNetv2_compare_vit 102 --curve` (nnUNet_results=WORK_FOLDER/results_100_0: iterations, seed).
labels_report.py makes tables and a picture of the record.
"""

import argparse
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from quality import (
    ALL_RUNS,
    DATASETS,
    OURS,
    ROOT,
    config_of,
    parser_of,
    prepare,
    recorded,
    scores_of,
    set_environment,
    write_record,
)

from nnunet_vit_trainer.results.subsets import Subset, append_subsets

RECORD = ROOT / "benchmarks" / "results" / "labels.json"
STOCK = "nnUNetTrainer_iterations"
RUNS = ("stock", "segformer_pyramid_shortcut_stem_lora", "linear_lora")
SHARES = (10.0, 25.0, 50.0, 100.0)
EVERY = 25


@dataclass(frozen=True)
class Run:
    """A run: its name (as in quality.py), data set, seed, cases and length.

    Attributes:
        name: stock, or a head and a way of tuning.
        dataset: its number.
        seed: of the training, and of the cases that are drawn.
        subset: the fold with these cases.
        iterations: of the training.
    """

    name: str
    dataset: int
    seed: int
    subset: Subset
    iterations: int

    @property
    def key(self) -> str:
        """What it is recorded by."""
        share, length = f"{self.subset.share:g}percent", f"{self.iterations}iterations"
        return f"{self.name}_{self.dataset}_{self.seed}_{share}_{length}"

    @property
    def length(self) -> tuple[int, int, int]:
        """Epochs, iterations an epoch, and validation's iterations an epoch."""
        epochs = max(2, self.iterations // EVERY)
        each = self.iterations // epochs
        return epochs, each, min(10, each)


def main() -> None:
    """Train and record what is not recorded yet, seed by seed."""
    arguments = parse()
    work, weights = arguments.work.resolve(), arguments.weights.resolve()
    set_environment(work)
    subsets = {}
    for dataset in arguments.datasets:
        prepare(dataset, arguments.data, work)
        for seed in arguments.seeds:
            folder = work / "preprocessed" / DATASETS[dataset]
            subsets[dataset, seed] = append_subsets(folder, arguments.shares, seed=seed)
    wanted = [
        Run(name, dataset, seed, subset, arguments.iterations)
        for seed in arguments.seeds
        for number in range(len(arguments.shares))
        for dataset in arguments.datasets
        for name in arguments.runs
        for subset in [subsets[dataset, seed][number]]
    ]
    wanted = [run for run in wanted if run.key not in recorded(arguments.record)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in [
            pool.submit(train, run, work, arguments.device, weights, arguments.record)
            for run in wanted
        ]:
            done.result()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--shares", nargs="+", type=float, default=SHARES, metavar="PERCENT")
    add("--runs", nargs="+", choices=ALL_RUNS, default=RUNS, metavar="NAME")
    add("--datasets", nargs="+", type=int, choices=DATASETS, default=[*DATASETS])
    add("--iterations", type=int, default=400, help="of each run: below 50, or a multiple of 25")
    add("--device", default="cpu")
    add("--jobs", type=int, default=2)
    add("--record", type=Path, default=RECORD)
    arguments = parser.parse_args()
    step = 2 if arguments.iterations < 2 * EVERY else EVERY
    if arguments.iterations < 2 or arguments.iterations % step:
        parser.error("--iterations: an even number below 50, or a multiple of 25, is expected")
    if not all(0 < share <= 100 for share in arguments.shares):
        parser.error("--shares: above 0 and at most 100 are expected")
    return arguments


def train(run: Run, work: Path, device: str, weights: Path, record: Path) -> None:
    """Train and validate one run, its output into a log beside the results, and record it."""
    fold = str(run.subset.fold)
    if run.name == "stock":
        plans, command = "", ["nnUNetv2_train", str(run.dataset), "2d", fold, "-tr", STOCK]
    else:
        plans, config = f"_{run.name}", write_config(run, work, weights)
        command = ["nnUNetv2_train_vit", str(run.dataset), "2d", fold, "--config", str(config)]
    results = work / f"results_{run.iterations}_{run.seed}"
    print(f"{run.key}: {run.subset.cases} cases ...", flush=True)
    environment = {"nnUNet_results": str(results), "QUALITY_SEED": str(run.seed)}
    environment |= {"LABELS_LENGTH": " ".join(map(str, run.length))}
    environment |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    with Path(work, f"{run.key}.log").open("w") as log:
        done = subprocess.run(
            [*command, "-device", device],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{run.key} failed: see {log.name}")
    trainer = STOCK if run.name == "stock" else OURS
    model = results / DATASETS[run.dataset] / f"{trainer}__nnUNetPlans{plans}__2d"
    scores = scores_of(model / f"fold_{fold}", work / "preprocessed" / DATASETS[run.dataset])
    write_record(run.key, facts_of(run) | scores | {"device": device}, record)


def write_config(run: Run, work: Path, weights: Path) -> Path:
    """Write the config of a run of ours."""
    config = work / "configs" / f"{run.iterations}_{run.seed}" / f"{run.name}.yaml"
    content = config_of(run.name, weights, run.seed)
    epochs, each, validated = run.length
    content["train"] |= {
        "num_epochs": epochs,
        "num_iterations_per_epoch": each,
        "num_val_iterations_per_epoch": validated,
    }
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(content))
    return config


def facts_of(run: Run) -> dict[str, Any]:
    """Return what a run is, for the record."""
    return {
        "run": run.name,
        "dataset": run.dataset,
        "seed": run.seed,
        "share": run.subset.share,
        "cases": run.subset.cases,
        "iterations": run.iterations,
    }


if __name__ == "__main__":
    main()
