"""Train heads under a plan for a ViT, and compare with the runs of quality.py.

    uv run --with surface-distance python benchmarks/vit_plans.py WORK_FOLDER
        [--runs NAME ...] [--datasets 101 102] [--seeds 0 1 2] [--data FOLDER] [--weights FILE]

The recipe, the data and the scores are quality.py's (its work folder can be taken); the plan is
what `nnUNetv2_plan_vit` makes for the recommended head's config where no GPU is: as for one of
8 GiB; all heads are trained under it. For 101 the tile is held down (TILES), for a CPU's sake.
Recorded in benchmarks/results/vit_plans.json; recorded runs are not trained again. The table of
docs/planning.md is written from the record, beside the runs of the same heads and seeds under
nnU-Net's plan.
"""

import itertools
import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import quality
import yaml
from document import put, spread

RUN = "segformer_pyramid_shortcut_stem_lora"
RUNS = quality.ALL_RUNS[1:]
"""All but stock nnU-Net, which cannot be trained under such a plan."""
PLANS, PREPARED = "nnUNetViTPlans", "prepared_nnUNetViTPlans"
OF_NNUNET = {101: "256 x 256, 3", 102: "224 x 192, 3"}
"""The tile and batch that nnU-Net plans."""
TILES: dict[int, list[int] | None] = {101: [378, 378], 102: None}
RECORD = quality.RECORD.with_name("vit_plans.json")
DOCUMENT = quality.ROOT / "docs" / "planning.md"
SCORES = ("dice", "pooled_dice", "surface_dice")


def main() -> None:
    """Train what is not recorded yet, and write the table."""
    parser = quality.parser_of(__doc__)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=[RUN], metavar="NAME")
    parser.add_argument("--datasets", nargs="*", type=int, choices=TILES, default=[*TILES])
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    quality.set_environment(work)
    for seed in arguments.seeds:
        for dataset, name in itertools.product(arguments.datasets, arguments.runs):
            if quality.key_of(name, dataset, seed) not in quality.recorded(RECORD):
                quality.prepare(dataset, arguments.data, work)
                train(work, name, dataset, seed, arguments.weights.resolve())
    put(DOCUMENT, "plans", "benchmarks/vit_plans.py", table())


def train(work: Path, name: str, dataset: int, seed: int, weights: Path) -> None:
    """Plan and preprocess where that was not done, train, validate and record."""
    planned_for, config = (write_config(work, of, dataset, seed, weights) for of in (RUN, name))
    number, preprocessed = str(dataset), work / "preprocessed" / quality.DATASETS[dataset]
    results = work / f"results_planned_{seed}"
    environment = os.environ | {"nnUNet_results": str(results)}
    environment |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    key = quality.key_of(name, dataset, seed)
    print(f"{key}, planned ...", flush=True)
    with Path(work, f"{key}_planned.log").open("w") as log:
        run = partial(subprocess.run, env=environment, stdout=log, stderr=log, check=True)
        if not (preprocessed / PREPARED).is_file():
            run(["nnUNetv2_plan_vit", number, "--config", str(planned_for)])
            run(["nnUNetv2_preprocess", "-d", number, "-c", "2d", "-plans_name", PLANS, "-np", "1"])
            (preprocessed / PREPARED).touch()
        command = ["nnUNetv2_train_vit", number, "2d", "0", "--config", str(config), "-p", PLANS]
        run([*command, "-device", "cpu"])
    model = results / preprocessed.name / f"{quality.OURS}__{PLANS}_{name}__2d"
    configuration = json.loads((model / "plans.json").read_text())["configurations"]["2d"]
    planned = {name: configuration[name] for name in ("patch_size", "batch_size")}
    quality.write_record(key, quality.scores_of(model / "fold_0", preprocessed) | planned, RECORD)


def write_config(work: Path, name: str, dataset: int, seed: int, weights: Path) -> Path:
    """Write the config of a run; its data set's tile stands in it where that is held down."""
    config = work / "configs" / f"planned_{seed}_{dataset}" / f"{name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    content = quality.config_of(name, weights, seed)
    content["train"] |= {"patch_size": TILES[dataset]} if TILES[dataset] else {}
    config.write_text(yaml.safe_dump(content))
    return config


def table() -> list[str]:
    """Return the rows under nnU-Net's plan and under ours, means over the seeds of both."""
    lines = [
        "| plan | run | data | tile, batch | Dice | pooled Dice | surface Dice, 1 px |",
        "|---|---|---|---|---|---|---|",
    ]
    planned, stock = quality.recorded(RECORD), quality.recorded(quality.RECORD)
    for dataset, name in itertools.product(quality.DATASETS, RUNS):
        keys = [key for key in planned if key.rpartition("_")[0] == f"{name}_{dataset}"]
        if not keys:
            continue
        of = f"{name} | {dataset} {quality.DATASETS[dataset].partition('_')[2]}"
        tile = " x ".join(map(str, planned[keys[0]]["patch_size"]))
        held = ", held down" if TILES[dataset] else ""
        ours = f"{tile}{held}, {planned[keys[0]]['batch_size']}"
        lines.append(f"| nnU-Net's | {of} | {OF_NNUNET[dataset]} | {scores(stock, keys)} |")
        lines.append(f"| for a ViT | {of} | {ours} | {scores(planned, keys)} |")
    return lines


def scores(record: dict[str, Any], keys: list[str]) -> str:
    """Write the cells of some runs: mean ± standard deviation (number)."""
    return " | ".join(spread([record[key][score] for key in keys]) for score in SCORES)


if __name__ == "__main__":
    main()
