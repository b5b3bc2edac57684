"""What a validation leaves, written without a network: masks, and nnU-Net's own summary of them."""

import json
import shutil
from pathlib import Path

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, save_summary_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image

from nnunet_vit_trainer.pictures.scores import mean_of

LABELS = {"background": 0, "a": 1, "b": 2}


def write_validation(model, cases, *, labels=LABELS, channels=("grey",), plans=(), **dataset):
    """Write masks and their summary into fold_0 of a copy of a trained model's folder.

    Args:
        model: the folder to write, of the name that its plans demand.
        cases: name -> image (C, ...), truth and prediction (...), all 2D or all 3D.
        labels: of dataset.json.
        channels: their names.
        plans: what is changed in them.
        dataset: what is changed in dataset.json.
    """
    content = json.loads((model / "plans.json").read_text()) | dict(plans)
    own = {"labels": labels, "channel_names": {str(i): name for i, name in enumerate(channels)}}
    own |= {"file_ending": ".png", "numTraining": len(cases)} | dataset
    (settings,) = content["configurations"].values()
    settings["normalization_schemes"] = ["ZScoreNormalization"] * len(channels)
    (model / "plans.json").write_text(json.dumps(content))
    (model / "dataset.json").write_text(json.dumps(own))
    manager = PlansManager(content)
    reader, of = manager.image_reader_writer_class(), manager.get_label_manager(own)
    home, fold = model.parent / "data", model / "fold_0"
    for folder in (home / "imagesTr", home / "labelsTr", fold / "validation"):
        folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, (image, truth, prediction) in cases.items():
        write_image(home / "imagesTr", name, image, own["file_ending"])
        files = []
        for folder, mask in ((home / "labelsTr", truth), (fold / "validation", prediction)):
            files.append(str(folder / f"{name}{own['file_ending']}"))
            write(Path(files[-1]), mask)
        keys = of.foreground_regions if of.has_regions else of.foreground_labels
        found.append(compute_metrics(*files, reader, keys, of.ignore_label))
    means = {
        key: {"Dice": mean_of([case["metrics"][key]["Dice"] for case in found])} for key in keys
    }
    mean = float(np.mean([value["Dice"] for value in means.values()]))
    for case in found:
        for values in case["metrics"].values():
            values.update({name: float(value) for name, value in values.items()})
    summary = {"metric_per_case": found, "mean": means, "foreground_mean": {"Dice": mean}}
    save_summary_json(summary, str(fold / "validation" / "summary.json"))
    return fold


def write_image(folder, name, image, ending):
    """Write an image's channels, colours into one file."""
    if ending == ".png" and len(image) == 3:
        return write(folder / f"{name}_0000{ending}", np.moveaxis(image, 0, 2))
    for i, channel in enumerate(image):
        write(folder / f"{name}_{i:04d}{ending}", channel)
    return None


def write(file, array):
    if file.name.endswith(".png"):
        return Image.fromarray(array.astype(np.uint8)).save(file)
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 4.0)[: array.ndim])
    return SimpleITK.WriteImage(image, str(file))


def pixels_of(file):
    """Return a picture's pixels, (height, width, 3)."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def size_of(file):
    """Return a picture's width and height."""
    return pixels_of(file).shape[1::-1]


def copy_of(trained_folder, home):
    """Copy a trained model's folder without its weights, for it to be validated anew."""
    model = home / trained_folder.name
    shutil.copytree(trained_folder, model, ignore=shutil.ignore_patterns("*.pth", "validation"))
    return model


def blob(shape, centre, radius):
    """Draw a filled circle or ball."""
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


def flat_case(rng, shape=(64, 64), shift=0, channels=1):
    """Make a noisy image with a blob of each class, found that many pixels away."""
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for value, share in ((1, 0.3), (2, 0.7)):
        centre = [side * share for side in shape]
        truth[blob(shape, centre, min(shape) / 6)] = value
        prediction[blob(shape, [centre[0], centre[1] + shift], min(shape) / 6)] = value
    noise = rng.normal(90, 20, (channels, *shape)) + 40 * truth
    return np.clip(noise, 0, 255), truth, prediction
