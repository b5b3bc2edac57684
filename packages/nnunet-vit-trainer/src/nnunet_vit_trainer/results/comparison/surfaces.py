"""Surface Dice and HD95 of validated masks, by MONAI, kept beside them.

Per case and class that either mask has, then the mean over cases, then over classes. Where a class
is in one of the two masks only, its surface Dice is 0 and its HD95 the image's diagonal. What the
ignore label covers is taken out of both masks.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from pydantic import BaseModel, TypeAdapter, ValidationError

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.results.folds import SUMMARY, Fold
from nnunet_vit_trainer.results.spread import mean_of
from vit_backbone import UserError, reason_of

from .result import Result, Surface

_PACKAGE = "monai"
KEPT = "validation/surface_metrics.json"
"""Where a fold's are kept; measuring them again takes long in 3D."""

Scores = dict[str, dict[str, tuple[float, float, bool]]]
"""Of each case, of each class's key: surface Dice, HD95, whether both masks have the class."""


class _Kept(BaseModel):
    measured: dict[str, str | float]
    cases: Scores


def check_library() -> None:
    """Refuse to go on without the library.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UserError(
            "surface metrics need MONAI: install nnunet-vit-trainer[compare], or leave them out "
            "with --no-surface"
        )


def unit_of(result: Result) -> str:
    """Return the unit of distances: ``px`` for images that have no spacing, else ``mm``."""
    reader = PlansManager(result.plans).image_reader_writer_class
    return "px" if issubclass(reader, NaturalImage2DIO) else "mm"


def measure_surfaces(
    result: Result, truth: Path, tolerance: float, on_case: Callable[[], None]
) -> None:
    """Measure the masks of a result's folds; what cannot be measured is noted.

    Args:
        result: gets its ``surfaces``.
        truth: the folder of the true masks, nnU-Net's ``gt_segmentations``.
        tolerance: of surface Dice, in mm or pixels.
        on_case: is called after each case.
    """
    for name, cases in result.dice.items():
        fold = Fold(name, result.folder / f"fold_{name}")
        try:
            scores = _scores(result, fold, list(cases), truth, tolerance, on_case)
        except Exception as error:  # also what nnU-Net and its readers make of a file
            result.notes.append(f"no surface metrics of fold {name}: {reason_of(error)}")
            continue
        single = sum(not both for of in scores.values() for _, _, both in of.values())
        if single:
            of_all = sum(map(len, scores.values()))
            result.notes.append(
                f"fold {name}: {single} of {of_all} surfaces are in one of the two masks only: "
                "surface Dice 0, HD95 the image's diagonal"
            )
        keys = dict.fromkeys(key for of in scores.values() for key in of)
        by_class = [[of[key] for of in scores.values() if key in of] for key in keys]
        dice, hd95 = (mean_of(mean_of(s[i] for s in of) for of in by_class) for i in (0, 1))
        result.surfaces[name] = Surface(dice, hd95)


def _scores(
    result: Result,
    fold: Fold,
    cases: list[str],
    truth: Path,
    tolerance: float,
    on_case: Callable[[], None],
) -> Scores:
    """Measure, unless what was measured before is of the same validation."""
    measured = {
        "summary_sha256": hashlib.sha256((fold.folder / SUMMARY).read_bytes()).hexdigest(),
        "tolerance": tolerance,
        "library": f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}",
        "flat": "along any axis",  # a figure of before was of a slab there
        "spacing": "the prediction's",  # before it was the truth's, and 1 mm of TIFFs
    }
    kept = _read_kept(fold.folder / KEPT)
    if kept is not None and kept.measured == measured:
        return kept.cases
    manager = PlansManager(result.plans)
    labels = manager.get_label_manager(result.dataset)
    classes = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    reader = manager.image_reader_writer_class()
    scores: Scores = {}
    for case in cases:
        masks = [folder / case for folder in (fold.folder / "validation", truth)]
        found, true, spacing = _read_masks(reader, *masks)
        if labels.has_ignore_label:
            ignored = true == labels.ignore_label
            found, true = (np.where(ignored, 0, mask) for mask in (found, true))
        of_classes = {
            str(c): _of_class(
                region_or_label_to_mask(found, c),
                region_or_label_to_mask(true, c),
                spacing,
                tolerance,
            )
            for c in classes
        }
        scores[case] = {key: score for key, score in of_classes.items() if score is not None}
        on_case()
    with contextlib.suppress(OSError):  # another user's results
        _keep({"measured": measured, "cases": scores}, fold.folder / KEPT)
    return scores


def _read_kept(file: Path) -> _Kept | None:
    try:
        return TypeAdapter(_Kept).validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _keep(content: dict[str, Any], file: Path) -> None:
    with written_whole(file) as unfinished:
        unfinished.write_text(json.dumps(content), encoding="utf-8")


def _read_masks(
    reader: Any, predicted: Path, truth: Path
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Read two masks; a single slice is two-dimensional, whichever of a volume's axes is flat.

    The spacing is the predicted mask's, which it has of the image: of a TIFF a file beside it says
    the spacing, and nnU-Net copies true masks without such.
    """
    for file in (predicted, truth):
        if not file.is_file():
            raise UserError(f"there is no {file}")
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells what it assumes
        true, _ = reader.read_seg(str(truth))
    found, properties = reader.read_seg(str(predicted))
    if found.shape != true.shape:
        raise UserError(
            f"{predicted.name} is of shape {found.shape[1:]}, its true mask of {true.shape[1:]}"
        )
    sides = true.shape[1:]
    flat = [axis for axis, side in enumerate(sides) if side == 1][: len(sides) - 2]
    spacing = tuple(float(s) for axis, s in enumerate(properties["spacing"]) if axis not in flat)
    found, true = (mask[0].squeeze(tuple(flat)) for mask in (found, true))
    return found, true, spacing


def _of_class(
    found: np.ndarray, true: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float, bool] | None:
    if not found.any() and not true.any():
        return None
    if not (found.any() and true.any()):
        diagonal = math.hypot(*(n * s for n, s in zip(true.shape, spacing, strict=True)))
        return 0.0, diagonal, False
    masks = [torch.from_numpy(mask)[None, None] for mask in (found, true)]
    options = {"include_background": True, "spacing": spacing}
    # An extra, which takes seconds to import.
    metrics: Any = importlib.import_module("monai.metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an argument that MONAI itself gives
        # By the elements' areas, as Nikolov et al., 2018, define it.
        dice = metrics.compute_surface_dice(*masks, [tolerance], use_subvoxels=True, **options)
        hd95 = metrics.compute_hausdorff_distance(*masks, percentile=95, **options)
    return float(dice), float(hd95), True
