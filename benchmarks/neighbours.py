"""Train with and without neighbouring slices as channels, on slabs of one head.

    python benchmarks/neighbours.py WORK_FOLDER [--heads NAME ...] [--seeds 0 1 2]
        [--data FOLDER] [--weights FILE]

The slices of Dataset102 that lie beside each other in one part of its split are a volume each (2 mm
between them): four to train on, three of five slices to validate, none of which has a neighbour in
the other part. Such a data set, and its conversion by nnUNetv2_neighbours_vit, are trained by the
recipe of quality.py. The Dice is the mean over volumes and classes, as nnU-Net has it. Recorded in
benchmarks/results/neighbours.json; recorded runs are not trained again.
"""

import json
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import quality
import SimpleITK as sitk  # noqa: N813
from document import spread
from heads import HEADS
from PIL import Image

SLICES = quality.DATASETS[102]
PLAIN, STACKED = 112, 113
NAMES = {PLAIN: "Dataset112_Slabs", STACKED: "Dataset113_Slabs_neighbours1"}
SPACING = (1.0, 1.0, 2.0)
RECORD = quality.RECORD.with_name("neighbours.json")
STEP = 2
"""Between the numbers of slices that lie beside each other."""


def main() -> None:
    """Train what is not recorded yet, and print the means."""
    parser = quality.parser_of(__doc__)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=["linear"], metavar="NAME")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    quality.set_environment(work)
    quality.DATASETS |= NAMES
    quality.scores_of = scores_of
    split = write_slabs(arguments.data / SLICES, work / "raw" / NAMES[PLAIN])
    prepare(work, split)
    for head in arguments.heads:
        run = f"{head}_lora"
        for seed in arguments.seeds:
            for dataset in NAMES:
                if quality.key_of(run, dataset, seed) not in quality.recorded(RECORD):
                    weights = arguments.weights.resolve()
                    quality.run(work, run, dataset, seed, "cpu", weights, RECORD)
        for dataset, name in NAMES.items():
            print(run, name, summary(run, dataset))


def write_slabs(source: Path, target: Path) -> dict[str, list[str]]:
    """Write runs of slices of one part of the split as volumes, and return the volumes' split."""
    (split,) = json.loads((source / "splits_final.json").read_text())
    volumes: dict[str, list[str]] = {}
    for part, names in split.items():
        numbers = enumerate(sorted(int(name[1:]) for name in names))
        for _, run in groupby(numbers, key=lambda pair: pair[1] - STEP * pair[0]):
            slices = [number for _, number in run]
            volumes.setdefault(part, []).append(name := f"{part}_{slices[0]:03d}")
            for folder, mark, out in (("imagesTr", "_0000", "_0000"), ("labelsTr", "", "")):
                files = [source / folder / f"z{number:03d}{mark}.png" for number in slices]
                write_volume(files, target / folder / f"{name}{out}.nii.gz")
    dataset = json.loads((source / "dataset.json").read_text())
    del dataset["overwrite_image_reader_writer"]
    dataset |= {"file_ending": ".nii.gz", "numTraining": sum(map(len, volumes.values()))}
    (target / "dataset.json").write_text(json.dumps(dataset))
    return volumes


def write_volume(slices: list[Path], file: Path) -> None:
    """Stack grey pictures."""
    image = sitk.GetImageFromArray(np.stack([np.asarray(Image.open(path)) for path in slices]))
    image.SetSpacing(SPACING)
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file), True)


def prepare(work: Path, split: dict[str, list[str]]) -> None:
    """Convert, plan and preprocess, where that was not done."""
    for number, name in NAMES.items():
        folder = work / "preprocessed" / name
        if (folder / "splits_final.json").is_file():
            continue
        if not (work / "raw" / name).is_dir():
            convert = ["nnUNetv2_neighbours_vit", str(PLAIN), "-d", str(number)]
            subprocess.run(convert, check=True)
        plan = ["nnUNetv2_plan_and_preprocess", "-d", str(number), "-c", "2d", "-np", "1"]
        subprocess.run(plan, check=True)
        (folder / "splits_final.json").write_text(json.dumps([split]))


def scores_of(fold: Path, preprocessed: Path) -> dict[str, Any]:
    """Return what a finished run reached."""
    result = json.loads((fold / "validation" / "summary.json").read_text())
    per_class = {label: round(of["Dice"], 4) for label, of in result["mean"].items()}
    return {"dice": round(result["foreground_mean"]["Dice"], 4), "per_class": per_class}


def summary(run: str, dataset: int) -> str:
    """Write the mean Dice of the recorded seeds, ± their standard deviation (number)."""
    records = quality.recorded(RECORD).items()
    dice = [s["dice"] for key, s in records if key.rpartition("_")[0] == f"{run}_{dataset}"]
    return spread(dice)


if __name__ == "__main__":
    main()
