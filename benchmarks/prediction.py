"""Time nnUNetv2_predict_vit beside stock prediction, and compare their masks.

    python benchmarks/prediction.py WORK_FOLDER MODEL IMAGES [--count 250] [--slices 100]
        [--rounds 1] [--device cpu]

MODEL is a trained 2D model's folder for .png images, IMAGES a folder of such. They are copied under
new names until there are ``count``; with ``--slices`` (grey images) also stacked into one volume,
which a copy of the model reads as .nii.gz. Each is predicted in fresh processes by stock
nnUNetv2_predict_from_modelfolder with its own defaults and by ours, by turns; and one image alone,
which is what starting costs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image

BIN = Path(sys.executable).parent


def main() -> None:
    """Time each set by turns and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--slices", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    work, model = arguments.work.resolve(), arguments.model.resolve()
    images = sorted(arguments.images.glob("*_0000.png"))
    sets = [("one image", model, copies(images, 1, work / "one"))]
    sets.append((f"{arguments.count} images", model, copies(images, arguments.count, work / "all")))
    if arguments.slices:
        volume = stacked(images, arguments.slices, work / "volume")
        sets.append((f"{arguments.slices} slices", reading_volumes(model, work / "models"), volume))
    print("| | stock, s | ours, s | ratio | equal pixels | --fast, s | equal pixels |")
    print("|---|---|---|---|---|---|---|")
    for name, of, folder in sets:
        print(row(name, of, folder, work, arguments.rounds, arguments.device), flush=True)


def copies(images: list[Path], count: int, folder: Path) -> Path:
    """Copy images under new names until there are ``count``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, image in enumerate(islice(cycle(images), count)):
        shutil.copyfile(image, folder / f"case{number:04d}_0000.png")
    return folder


def stacked(images: list[Path], slices: int, folder: Path) -> Path:
    """Stack grey images, cropped to the smallest, into a volume."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pixels = [np.asarray(Image.open(file)) for file in images]
    height, width = np.min([p.shape for p in pixels], axis=0)
    volume = np.stack([p[:height, :width] for p in islice(cycle(pixels), slices)])
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / "volume_0000.nii.gz"))
    return folder


def reading_volumes(model: Path, folder: Path) -> Path:
    """Copy a model so that it reads volumes."""
    shutil.rmtree(folder, ignore_errors=True)
    copy = Path(shutil.copytree(model, folder / model.name))
    for name, changed in (
        ("plans.json", {"image_reader_writer": "SimpleITKIO"}),
        ("dataset.json", {"file_ending": ".nii.gz", "overwrite_image_reader_writer": None}),
    ):
        content = {**json.loads((copy / name).read_text()), **changed}
        (copy / name).write_text(json.dumps(content))
    return copy


def row(name: str, model: Path, images: Path, work: Path, rounds: int, device: str) -> str:
    """Predict one set by turns, and describe it as a row of the table."""
    stock = ["nnUNetv2_predict_from_modelfolder", "-f", "0"]
    ours = ["nnUNetv2_predict_vit", "-f", "0"]
    commands = {"stock": stock, "ours": ours, "fast": [*ours, "--fast"]}
    seconds: dict[str, list[float]] = {of: [] for of in commands}
    for _ in range(rounds):
        for of, command in commands.items():
            output = work / "out" / of
            shutil.rmtree(output, ignore_errors=True)
            paths = ["-i", str(images), "-o", str(output), "-m", str(model), "-device", device]
            begun = time.perf_counter()
            subprocess.run(
                [str(BIN / command[0]), *command[1:], *paths], check=True, capture_output=True
            )
            seconds[of].append(time.perf_counter() - begun)
    took = {of: median(values) for of, values in seconds.items()}
    same = {of: equal_share(work / "out" / "stock", work / "out" / of) for of in ("ours", "fast")}
    return (
        f"| {name} | {took['stock']:.1f} | {took['ours']:.1f} | {took['stock'] / took['ours']:.2f} "
        f"| {same['ours']:.6f} | {took['fast']:.1f} | {same['fast']:.4f} |"
    )


def equal_share(one: Path, other: Path) -> float:
    """Return the share of pixels that have one label in the masks of two folders."""
    pairs = [(read(file), read(other / file.name)) for file in sorted(one.glob("*.*g*"))]
    pairs = [(a, b) for a, b in pairs if a is not None]
    return float(np.mean([np.mean(a == b) for a, b in pairs]))


def read(file: Path) -> np.ndarray | None:
    """Read a mask; ``None`` for another file."""
    if not file.name.endswith((".png", ".nii.gz")):
        return None
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


if __name__ == "__main__":
    main()
