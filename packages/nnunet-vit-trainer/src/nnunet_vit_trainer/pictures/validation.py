"""A fold's validation as a picture: which cases, and the sheet beside the fold's checkpoints."""

import math
from dataclasses import dataclass
from pathlib import Path

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.checkpoints.model_folder import CHECKPOINT_KEY, FINAL, read_model
from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import UserError, reason_of, shorten

from .classes import classes_of, ignored_value
from .overlay import Row, draw_sheet
from .scores import Score, chosen, mean_of, scores_of
from .sources import Model, Slice, read_slice

SHEET = "overlay.png"


@dataclass(frozen=True)
class Validation:
    """What a fold's validation found.

    Attributes:
        model: what is known of the data.
        scores: per case.
        mean: nnU-Net's mean Dice: the mean over the classes of their means over the cases. A class
            that no case has, nor any prediction, is left out; nnU-Net's own is NaN then.
        cases: how many, whether they were trained on, which classes none has, and by which
            checkpoint if not the final one, in words.
    """

    model: Model
    scores: list[Score]
    mean: float
    cases: str


def draw_validation(fold: Path) -> Path:
    """Draw the best, the median and the worst case of a fold's validation, and return the PNG.

    Args:
        fold: the fold's folder in a trained model's, with ``validation/summary.json``.

    Raises:
        UserError: no validation, or masks that are gone.
        OSError: what the disk says.
    """
    found = read_validation(fold)
    model = found.model
    rows = [
        Row(place, score, _slice_of(model, fold, score)) for place, score in chosen(found.scores)
    ]
    title = (
        f"{model.plans['dataset_name']}  {model.plans['plans_name']}  {fold.name}: "
        f"validation of {found.cases}, mean Dice {found.mean:.3f}"
    )
    sheet = draw_sheet(rows, model.classes, model.ignored, title)
    with written_whole(fold / SHEET) as unfinished:
        unfinished.write_bytes(sheet)
    return fold / SHEET


def read_validation(fold: Path) -> Validation:
    """Read what a fold's validation found.

    Args:
        fold: see `draw_validation`.

    Raises:
        UserError: no validation of a trained model, or one without cases.
    """
    plans, dataset = read_model(fold.parent)
    model = Model(plans, dataset, classes_of(dataset), ignored_value(dataset))
    file = fold / "validation" / "summary.json"
    if not file.is_file():
        raise UserError(f"there is no {file}; validate with nnUNetv2_train_vit ... --val")
    summary = read_json(file)
    try:
        scores = scores_of(summary, model.classes, dataset["file_ending"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{file} is no summary of nnU-Net's: {reason_of(error)}") from error
    if not scores:
        raise UserError(f"{file} holds no case")
    cases = "1 case" if len(scores) == 1 else f"{len(scores)} cases"
    seen = " that it trained on" if fold.name == "fold_all" else ""
    means = [mean_of([score.dice[i] for score in scores]) for i in range(len(model.classes))]
    absent = [c.name for c, mean in zip(model.classes, means, strict=True) if math.isnan(mean)]
    without = f", none with {', '.join(absent)}" if absent else ""
    checkpoint = summary.get(CHECKPOINT_KEY, FINAL)
    by = "" if checkpoint == FINAL else f", by {shorten(str(checkpoint), 40)}"
    return Validation(model, scores, mean_of(means), cases + seen + without + by)


def _slice_of(model: Model, fold: Path, score: Score) -> Slice:
    prediction = fold / "validation" / f"{score.case}{model.dataset['file_ending']}"
    if not prediction.is_file():
        raise UserError(f"there is no {prediction}; validate with nnUNetv2_train_vit ... --val")
    return read_slice(model, score.case, score.truth, prediction)
