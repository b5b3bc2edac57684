"""Make a model card of what the plans, ``dataset.json`` and summaries of a model say.

A stranger wrote some of them: what is read has the type that is read, and is one printable line.
"""

import math
import shlex
from pathlib import PureWindowsPath
from typing import Any, Literal

from nnunet_vit_trainer.checkpoints.releases import Release, family_of, release_in
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.plans.neighbours import KEY
from nnunet_vit_trainer.results import folds as of_folds
from nnunet_vit_trainer.results.spread import Spread, dice_by_class, mean_of, spread_of
from vit_backbone import shorten

from . import schema
from .papers import papers_of
from .reading import Arguments, Dataset, Ours, Settings, read_as

_LONGEST = 1000
_UNKNOWN_LICENCE = "the licence of the weights is not known here: see where the file is from"


def card_of(
    plans: dict[str, Any],
    dataset: dict[str, Any],
    folds: list[str],
    finished: list[str],
    found: dict[str, of_folds.Dice],
    *,
    name: str,
    kind: Literal["results", "zip"],
    source: str,
    checkpoint: str = of_folds.FINAL,
    notes: list[str] | None = None,
) -> schema.ModelCard:
    """Make the card of a trained model.

    Args:
        plans: they have passed `model_folder.check_plans`.
        dataset: the content of ``dataset.json``.
        folds: that are there.
        finished: those of them that a prediction finds.
        found: by the validation of each fold that has one, in the order of the folds; one that
            validated an earlier one's cases is noted, and left out of Dice and commands.
        name: of the model's folder, ``<trainer>__<plans>__<configuration>``.
        kind: where it lies.
        source: that, for messages.
        checkpoint: the name of the file that a prediction finds there.
        notes: what else a reader must know.

    Raises:
        UserError: a value of another type than a training writes.
    """
    (configuration,) = plans["configurations"]
    ours = read_as(Ours, plans[PLANS_KEY], f"{source}: plans.json: {PLANS_KEY}")
    settings = read_as(
        Settings, plans["configurations"][configuration], f"{source}: plans.json: {configuration}"
    )
    images = read_as(Dataset, dataset, f"{source}: dataset.json")
    notes = list(notes or [])
    arguments = settings.architecture.arch_kwargs
    backbone = _backbone(ours, arguments)
    release = release_in(plans[PLANS_KEY])
    weights = None
    if ours.weights is not None:
        weights = weights_of(release, ours.weights.file, ours.weights.sha256)
    if backbone.tuned == "lora" and not arguments.use_lora:
        notes.append("LoRA is folded into the weights")
    if weights is not None and weights.licence is None:
        notes.append(_UNKNOWN_LICENCE)
    if of_folds.ALL in found:
        notes.append("fold all is validated on cases that it trained on: its Dice is left out")
    repeats = of_folds.repeats_in({f: of for f, of in found.items() if f != of_folds.ALL})
    if repeats:
        earlier = ", ".join(dict.fromkeys(repeats.values()))
        notes.append(
            f"fold {', '.join(repeats)}: validated the cases of fold {earlier}, as the parts of a "
            "learning curve do: left out of Dice and commands"
        )
    card = schema.ModelCard(
        kind=kind,
        name=name,
        trainer=name.split("__")[0],
        plans=plans["plans_name"],
        configuration=configuration,
        folds=folds,
        backbone=backbone,
        weights=weights,
        head=schema.Head(name=arguments.head, options=_options(ours)),
        data=_data(plans["dataset_name"], ours, settings, images),
        dice=_dice({f: of for f, of in found.items() if f not in repeats}, dataset),
        recipe=ours.train,
        versions=ours.versions,
        papers=papers_of(release, arguments.head, _options(ours), backbone.lora),
        notes=notes,
    )
    members = of_folds.members_among(finished, found)
    card.predict = _commands(card, plans["dataset_name"], members, checkpoint)
    if card.predict and KEY in dataset:
        stack = "nnUNetv2_neighbours_vit -i IMAGES -o STACKED -m MODEL_FOLDER"
        card.predict = [stack, *(c.replace("-i IMAGES", "-i STACKED") for c in card.predict)]
    return schema.ModelCard.model_validate(_printable(card.model_dump()))


def weights_of(release: Release | None, file: str | None, sha256: str | None) -> schema.Weights:
    """Say which weights these are, and their licence.

    Args:
        release: that they come from; ``None``: not known.
        file: its path or name; ``None``: the family's released weights.
        sha256: of the file.
    """
    return schema.Weights(
        file=PureWindowsPath(file).name if file else file,
        sha256=sha256,
        release=release.name if release else None,
        licence=release.licence if release else None,
    )


def _commands(card: schema.ModelCard, dataset: str, folds: list[str], checkpoint: str) -> list[str]:
    """Return the commands that predict with a model, once it is in nnUNet_results."""
    if not folds:
        return []
    words = [dataset, card.trainer, card.plans, card.configuration]
    dataset, trainer, plans, configuration = map(shlex.quote, words)
    model = f"-d {dataset} -tr {trainer} -p {plans} -c {configuration} -f {' '.join(folds)}"
    model += f" -chk {checkpoint}" if checkpoint != of_folds.FINAL else ""
    return [
        f"nnUNetv2_predict {model} -i IMAGES -o MASKS",
        f"nnUNetv2_predict_vit {model} -i IMAGES -o MASKS",
    ]


def _backbone(ours: Ours, arguments: Arguments) -> schema.Backbone:
    asked = str(ours.model.get("backbone") or ours.backbone.asked)
    built = "lora" if arguments.use_lora else "frozen" if arguments.freeze_backbone else "full"
    tuned = str(ours.model.get("tune") or built)
    lora = {name: value for name, value in ours.lora.items() if name != "enabled"}
    return schema.Backbone(
        family=family_of(asked, ours.backbone.name),
        name=ours.backbone.name,
        tuned=tuned,
        lora=lora if tuned == "lora" else None,
        input_norm=ours.input_norm,
    )


def _options(ours: Ours) -> dict[str, Any]:
    options = ours.model.get("decoder")
    return options if isinstance(options, dict) else {}


def _data(dataset: str, ours: Ours, settings: Settings, images: Dataset) -> schema.Data:
    cases = ours.data.get("cases")
    return schema.Data(
        dataset=dataset,
        channels=list((images.channel_names or images.modality).values()),
        labels=images.labels,
        tile=settings.patch_size,
        spacing=settings.spacing,
        normalisation=settings.normalization_schemes,
        cases=cases if isinstance(cases, int) else images.numTraining,
        licence=images.licence or images.license,
        reference=images.reference,
    )


def _dice(found: dict[str, of_folds.Dice], dataset: dict[str, Any]) -> schema.Dice | None:
    found = {fold: cases for fold, cases in found.items() if fold != of_folds.ALL and cases}
    by_fold = [dice_by_class(cases) for cases in found.values()]
    names = of_folds.class_keys(dataset)
    keys = dict.fromkeys(key for of in by_fold for key in of)
    if not keys:
        return None
    return schema.Dice(
        folds=list(found),
        cases=sum(map(len, found.values())),
        mean=_score(spread_of(mean_of(of.values()) for of in by_fold)),
        classes={
            names.get(key, key): _score(spread_of(of[key] for of in by_fold if key in of))
            for key in keys
        },
    )


def _score(of: Spread) -> schema.Score:
    mean, spread = (None if math.isnan(value) else value for value in of)  # NaN is no JSON
    return schema.Score(mean=mean, spread=spread)


def _printable(tree: Any) -> Any:
    """Copy nested content with every text one printable line: some of it a stranger wrote."""
    if isinstance(tree, dict):
        return {shorten(key, _LONGEST): _printable(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_printable(value) for value in tree]
    return shorten(tree, _LONGEST) if isinstance(tree, str) else tree
