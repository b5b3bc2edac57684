"""Discs and rings some pixels wide: heads at equal iterations beside stock nnU-Net.

    uv run --with surface-distance python benchmarks/small_objects.py WORK_FOLDER
        [--runs NAME ...] [--seeds 0 1 2] [--jobs 2]

A drawn data set on which no default was chosen, and on which a U-Net is at home: 60 grey images of
128 px, 40 to train on; filled discs and rings of 5 to 10 px, lines of the same grey that are
neither, smooth and fine noise. Classes differ by what is inside of an outline, which is finer than
a patch. Recipe, runs and scores are quality.py's (its work folder can be taken). Recorded in
benchmarks/results/small_objects.json; recorded runs are not trained again. The table of
docs/results.md is written from the record.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import quality
from document import put, spread
from PIL import Image
from scipy.ndimage import gaussian_filter

NUMBER, NAME = 110, "Dataset110_SmallObjects"
CASES, TRAINED, SIDE = 60, 40, 128
OBJECTS = 8
"""Of each kind in an image."""
LABELS = {"background": 0, "disc": 1, "ring": 2}
RUNS = (
    "linear_lora",
    "linear_stem_lora",
    "segformer_pyramid_shortcut_stem_lora",
    "segformer_64_pyramid_shortcut_stem_lora",
    "unetr_light_shortcut_stem_lora",
    "stock",
)
RECORD = quality.RECORD.with_name("small_objects.json")
DOCUMENT = quality.ROOT / "docs" / "results.md"
SCORES = (("dice", 3), ("pooled_dice", 3), ("surface_dice", 3), ("hd95", 1))


def main() -> None:
    """Train what is not recorded yet, and write the table."""
    parser = quality.parser_of(__doc__)
    parser.add_argument("--runs", nargs="*", choices=quality.ALL_RUNS, default=RUNS, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    work, weights = arguments.work.resolve(), arguments.weights.resolve()
    quality.set_environment(work)
    quality.DATASETS[NUMBER] = NAME
    if not (work / "drawn" / NAME / "dataset.json").is_file():
        write_dataset(work / "drawn" / NAME)
    quality.prepare(NUMBER, work / "drawn", work)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in [
            pool.submit(quality.run, work, name, NUMBER, seed, "cpu", weights, RECORD)
            for seed in arguments.seeds
            for name in arguments.runs
            if quality.key_of(name, NUMBER, seed) not in quality.recorded(RECORD)
        ]:
            done.result()
    put(DOCUMENT, "small_objects", "benchmarks/small_objects.py", table())


def write_dataset(folder: Path) -> None:
    """Draw the data set and its split, always the same."""
    rng = np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    names = [f"objects_{index:02d}" for index in range(CASES)]
    for name in names:
        image, labels = draw(rng)
        Image.fromarray(image).save(folder / "imagesTr" / f"{name}_0000.png")
        Image.fromarray(labels).save(folder / "labelsTr" / f"{name}.png")
    split = [{"train": names[:TRAINED], "val": names[TRAINED:]}]
    (folder / "splits_final.json").write_text(json.dumps(split))
    description = {
        "channel_names": {"0": "grey"},
        "labels": LABELS,
        "numTraining": CASES,
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image and its labels: two (SIDE, SIDE) uint8 arrays."""
    shapes, labels = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for kind in rng.permutation(np.repeat([0, *list(LABELS.values())[1:]], OBJECTS)):
        centre, radius = rng.uniform(6, SIDE - 6, 2), rng.uniform(2.5, 5)
        away = np.hypot(y - centre[0], x - centre[1])
        if labels[away <= radius + 3].any():
            continue  # objects do not touch
        if kind == 0:
            angle = rng.uniform(0, np.pi)
            across = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
            shape = (away <= 2 * radius) & (abs(across) <= 0.7) & (labels == 0)
        else:
            shape = away <= radius
            labels[shape] = kind
            if kind == LABELS["ring"]:
                shape &= away > radius - 1.5
        shapes = np.maximum(shapes, rng.uniform(0.7, 1.3) * shape)
    light = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 10)
    noise = 0.5 * rng.standard_normal((SIDE, SIDE))
    image = gaussian_filter(1.5 * shapes, 0.5) + light / light.std() * 0.6 + noise
    return np.clip(110 + 40 * image, 0, 255).astype(np.uint8), labels


def table() -> list[str]:
    """Return a row per run: means over its seeds."""
    lines = [
        "| run | Dice | pooled Dice | surface Dice, 1 px | HD95, px |",
        "|---|---|---|---|---|",
    ]
    record = quality.recorded(RECORD)
    for run in quality.ALL_RUNS:
        found = [of for key, of in record.items() if key.rpartition("_")[0] == f"{run}_{NUMBER}"]
        if found:
            cells = [spread([of[score] for of in found], digits) for score, digits in SCORES]
            lines.append(f"| {run} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
