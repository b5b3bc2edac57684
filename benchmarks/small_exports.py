"""Compare a trained model's ONNX files of each precision: Dice, equal pixels, size and time.

    python benchmarks/small_exports.py WORK_FOLDER RAW MODEL [MODEL ...] [--fold 0] [--rounds 3]

RAW is nnUNet_raw, with data sets of .png images that have a splits_final.json, MODEL a folder
that was trained on one of them, DATASET/TRAINER__PLANS__CONFIGURATION. Its fold is exported, and
the fold's validation cases are predicted by the predictor of docs/serving.md, one thread, file by
file in turns, so that what else runs on the machine slows all alike. The table goes there too.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import torch
from document import put
from PIL import Image

from nnunet_vit_trainer import export_onnx_vit
from nnunet_vit_trainer.prediction import Predictor
from nnunet_vit_trainer.sharing.onnx.precision import PRECISIONS, in_precision

DOCUMENT = Path(__file__).parents[1] / "docs" / "serving.md"


def main() -> None:
    """Export, predict and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("raw", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    lines = [
        "| model | file | MB | Dice | change | pixels equal to PyTorch's: mean (least) | time |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in arguments.models:
        raw = arguments.raw / model.parent.name
        lines += rows(model, raw, arguments.fold, arguments.work, arguments.rounds)
    put(DOCUMENT, "small exports", "benchmarks/small_exports.py", lines)


def rows(model: Path, raw: Path, fold: int, work: Path, rounds: int) -> list[str]:
    """Return a row for PyTorch, and one for each precision."""
    cases = json.loads((raw / "splits_final.json").read_text())[fold]["val"]
    images = [read(raw / "imagesTr" / f"{case}_0000.png") for case in cases]
    truths = [read(raw / "labelsTr" / f"{case}.png")[0, 0] for case in cases]
    torch_predictor = Predictor(model, folds=[fold])
    predict = {"PyTorch": lambda image: torch_predictor.predict(image[:, 0])}
    sizes = {"PyTorch": (model / f"fold_{fold}" / "checkpoint_final.pth").stat().st_size}
    serving = predictor_of_document()
    for precision, file in exported(model, fold, work).items():
        sizes[precision] = file.stat().st_size
        predict[precision] = with_one_thread(serving, file)
    masks, seconds = {name: [] for name in predict}, {name: [] for name in predict}
    for turn in range(rounds):
        for image in images:
            for name, of in predict.items():
                begun = perf_counter()
                mask = of(image)
                seconds[name].append(perf_counter() - begun)
                if turn == 0:
                    masks[name].append(mask)
    scores = {name: dice(found, truths) for name, found in masks.items()}
    title = f"{model.parent.name}, {model.name.split('__')[1].removeprefix('nnUNetPlans_')}"
    return [
        f"| {title} | {'checkpoint' if name == 'PyTorch' else name} | {sizes[name] / 1e6:.1f} "
        f"| {scores[name]:.4f} | {scores[name] - scores['PyTorch']:+.4f} "
        f"| {equality(masks[name], masks['PyTorch'])} "
        f"| {ratio(seconds[name], seconds['float32'])} |"
        for name in predict
    ]


def exported(model: Path, fold: int, work: Path) -> dict[str, Path]:
    """Export a fold once, and convert it: as the command does it, but traced once."""
    files = {precision: work / f"{precision}.onnx" for precision in PRECISIONS}
    for file in files.values():
        file.unlink(missing_ok=True)
    export_onnx_vit(model, files["float32"], fold=str(fold))
    for precision in PRECISIONS[1:]:
        converted = in_precision(onnx.load(files["float32"]), precision)
        del converted.metadata_props[:]
        converted.metadata_props.extend(onnx.load(files["float32"]).metadata_props)
        onnx.save(converted, files[precision])
    return files


def read(file: Path) -> np.ndarray:
    """Read an image as (channels, 1, height, width)."""
    return np.atleast_3d(np.asarray(Image.open(file))).transpose(2, 0, 1)[:, None]


def predictor_of_document() -> ModuleType:
    """Return the predictor of docs/serving.md as a module."""
    text = DOCUMENT.read_text()
    begin = text.index("# predict_onnx.py")
    module = ModuleType("predict_onnx")
    exec(text[begin : text.index("```", begin)], vars(module))
    return module


def with_one_thread(serving: ModuleType, file: Path):  # noqa: ANN201 - a function of an image
    """Return what predicts an image (channels, 1, height, width) by a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda image: serving.predict([session], image, (999, 1, 1))[0]


def dice(masks: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """Return nnU-Net's mean Dice: over cases, left out where neither mask has it; then classes."""
    scores = []
    for label in range(1, 1 + max(truth.max() for truth in truths)):
        pairs = [(mask == label, truth == label) for mask, truth in zip(masks, truths, strict=True)]
        sums = [(2 * (a & b).sum(), a.sum() + b.sum()) for a, b in pairs]
        scores.append(mean(both / total for both, total in sums if total))
    return float(mean(scores))


def equality(masks: list[np.ndarray], others: list[np.ndarray]) -> str:
    """Return the share of equal pixels in percent, its mean and its least."""
    shares = [100 * (a == b).mean() for a, b in zip(masks, others, strict=True)]
    return f"{mean(shares):.3f} % ({min(shares):.3f} %)"


def ratio(seconds: list[float], of_float32: list[float]) -> str:
    """Return the time as a share of that of float32: the median over pairs of one image."""
    return f"{median(a / b for a, b in zip(seconds, of_float32, strict=True)):.2f}"


if __name__ == "__main__":
    main()
