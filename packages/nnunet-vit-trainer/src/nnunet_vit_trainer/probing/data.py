"""The data set that is probed on: a bounded sample of its preprocessed tiles, and its folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_vit_trainer.launch.checks import check_channels, first_fold
from nnunet_vit_trainer.pictures.classes import ShownClass, classes_of, ignored_value
from nnunet_vit_trainer.plans.datasets import find_dataset, read_dataset_json, read_plans
from nnunet_vit_trainer.plans.derive import PLANS_KEY, settings_of
from nnunet_vit_trainer.plans.neighbours import shown_channel
from vit_backbone import UserError

from .crossing.folds import Fold, folds_of, sample_cases
from .crossing.validate import counted_classes
from .patches.tiles import Labels, Tile, read_tiles


@dataclass(frozen=True)
class Data:
    """What is probed on.

    Attributes:
        dataset: its name.
        configuration: of the plans.
        tiles: of the cases that were drawn.
        folds: of all cases.
        counted: the classes that count in each fold, see `counted_classes`.
        positions: of each class, those of its labels.
        labels: how many there are, background among them.
        schemes: nnU-Net's normalisation of each channel.
        intensities: of the plans, for raw channels.
        channels: their names.
        notes: what to know of the sample.
        plans_name: of the plans.
        shown: the channel that is drawn where they are no colours.
        first_fold: to train first.
    """

    dataset: str
    configuration: str
    tiles: list[Tile]
    folds: list[Fold]
    counted: list[list[str]]
    positions: dict[str, tuple[int, ...]]
    labels: int
    schemes: list[str]
    intensities: Mapping[str, Any]
    channels: list[str]
    notes: list[str]
    plans_name: str
    shown: int
    first_fold: str


def read_data(
    name_or_id: str | int,
    configuration: str,
    plans_name: str,
    most: int,
    seed: int,
    on_case: Callable[[], None] = lambda: None,
) -> Data:
    """Read a sample of a preprocessed data set.

    Args:
        name_or_id: of the data set.
        configuration: a 2D one of its plans, such as ``2d``.
        plans_name: of the data set's own plans.
        most: tiles to read, at least 2.
        seed: of what is drawn.
        on_case: called after each case.

    Raises:
        UserError: it is not preprocessed, cannot be cross-validated, or cannot be read; or the
            plans are ones that a training derived, which no other takes.
    """
    dataset, folder = find_dataset(name_or_id)
    plans = read_plans(folder, plans_name, configuration)
    if PLANS_KEY in plans:
        raise UserError(f"plans {plans_name!r} are derived already; give the dataset's own with -p")
    settings = settings_of(plans, configuration)
    content = read_dataset_json(folder)
    channels = {str(key): str(name) for key, name in content["channel_names"].items()}
    check_channels(channels, settings["normalization_schemes"])
    where = str(folder / settings["data_identifier"])
    kind = infer_dataset_class(where)
    cases = sorted(kind.get_identifiers(where))
    folds = folds_of(folder, settings["data_identifier"], cases)
    rng = np.random.default_rng(seed)
    drawn = sample_cases(folds, most, rng)
    classes, labels = classes_of(content), _labels_of(content)
    height, width = settings.get("spacing", (1.0, 1.0))
    size = settings["patch_size"]
    tiles = read_tiles(kind(where), drawn, most, size, height / width, labels, rng, on_case)
    positions = _positions_of(classes, labels.values)
    counted = counted_classes(tiles, folds, positions)
    if not any(counted):
        raise UserError(
            f"{dataset}: no class is both in training and in validation cases of a fold; more "
            "cases with it are needed, or another splits_final.json"
        )
    return Data(
        dataset,
        configuration,
        tiles,
        folds,
        counted,
        positions,
        len(labels.values),
        settings["normalization_schemes"],
        plans.get("foreground_intensity_properties_per_channel", {}),
        [*channels.values()],
        _notes(tiles, len(cases), folds, counted, positions),
        plans_name,
        shown_channel(content),
        first_fold(folder, len(cases)),
    )


def _labels_of(content: Mapping[str, Any]) -> Labels:
    """List the labels' values; those of regions once."""
    named = [value for name, value in content["labels"].items() if name != "ignore"]
    values = {int(v) for value in named for v in (value if isinstance(value, list) else [value])}
    return Labels(tuple(sorted(values)), ignored_value(content))


def _positions_of(
    classes: Sequence[ShownClass], values: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """Return where the labels of each class, or region, stand among the labels' values."""
    return {of.name: tuple(values.index(value) for value in of.values) for of in classes}


def _notes(
    tiles: Sequence[Tile],
    cases: int,
    folds: Sequence[Fold],
    counted: Sequence[Sequence[str]],
    positions: Mapping[str, Any],
) -> list[str]:
    """Say what was drawn, and what cannot be scored."""
    drawn = len({tile.case for tile in tiles})
    height, width = tiles[0].labels.shape
    scored = sum(map(bool, counted))
    told = f"{len(folds)} folds" if len(folds) > 1 else "1 fold"
    if scored < len(folds):
        told = f"{scored} of {told} scored"
    notes = [
        f"{len(tiles)} tiles of {height}x{width} px, of {drawn} of {cases} cases; {told}"
        + (", so no spread" if scored == 1 else "")
    ]
    notes += [
        f"class {name} is not in both parts of any fold, so it is not scored"
        for name in positions
        if not any(name in names for names in counted)
    ]
    if partly := [n for n in positions if 0 < sum(n in c for c in counted) < scored]:
        notes.append(f"not scored in every fold: {', '.join(partly)}")
    return notes
