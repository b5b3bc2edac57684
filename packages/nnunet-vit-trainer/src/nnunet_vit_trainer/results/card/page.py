"""A model card as text: lines for a terminal, and Markdown for a reader of a shared model."""

from typing import Any

from nnunet_vit_trainer.results.spread import Spread

from .schema import Dice, ModelCard, Score, Weights

CARD, CITATION = "README.md", "CITATION.bib"
"""The files of a shared model that hold the card, and the papers of its parts."""

_RECIPE = ("optimizer", "initial_lr", "num_epochs", "num_iterations_per_epoch", "seed")


def facts_of(card: ModelCard) -> list[tuple[str, str]]:
    """Say what a model is, as (name, value) lines.

    Args:
        card: the model's.
    """
    head = f"{card.head.name} ({_listed(card.head.options)})"
    backbone, data = card.backbone, card.data
    facts = [
        ("backbone", f"{backbone.name}{f' ({backbone.family})' if backbone.family else ''}"),
        ("weights", _weights(card.weights)),
        *([("sha256", card.weights.sha256 or "not known")] if card.weights else []),
        *([("licence", card.weights.licence or "not known")] if card.weights else []),
        ("tuned", f"{backbone.tuned} {_listed(backbone.lora or {})}".strip()),
        ("head", head if card.head.options else card.head.name),
        ("input norm", backbone.input_norm or "not recorded"),
    ]
    if data is not None:
        labels = (name for name in data.labels if name not in ("background", "ignore"))
        sides = " x ".join(map(str, data.tile))
        facts += [
            ("data", f"{data.dataset}, {'?' if data.cases is None else data.cases} cases"),
            ("channels", ", ".join(map(_channel, data.channels, data.normalisation))),
            ("labels", ", ".join(labels)),
            ("tile", f"{sides} px at spacing {' x '.join(f'{s:g}' for s in data.spacing)}"),
            *([("data licence", data.licence)] if data.licence else []),
            *([("data from", data.reference)] if data.reference else []),
        ]
    if card.kind != "config":
        facts += [("folds", ", ".join(card.folds) or "none"), ("Dice", _dice(card.dice))]
        facts += [(f"  {name}", _score(score)) for name, score in _classes(card.dice)]
    recipe = {name: card.recipe[name] for name in _RECIPE if name in card.recipe}
    facts.append(("recipe", _listed(recipe)))
    if card.versions:
        facts.append(("versions", ", ".join(f"{n} {v}" for n, v in card.versions.items())))
    return facts


def markdown_of(card: ModelCard, install: str) -> str:
    """Write a card as the ``README.md`` of a shared model.

    Args:
        card: the model's.
        install: the command that installs it.
    """
    rows = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts_of(card))
    notes = "".join(f"- {_cell(note)}\n" for note in card.notes)
    commands = "\n".join([install, *card.predict])
    return (
        f"# {_cell(card.name)}\n\n"
        "A segmentation model for nnU-Net v2 on a vision transformer, trained with\n"
        "nnunet-vit-trainer. Written by nnUNetv2_export_vit from the model's own plans.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        f"{f'## Notes{chr(10)}{chr(10)}{notes}{chr(10)}' if notes else ''}"
        f"## Predict\n\n```bash\n{commands}\n```\n\n"
        "## Licence\n\n"
        f"{_licence(card.weights)}\n\n"
        f"## Cite\n\nThe papers of the parts used are in `{CITATION}`.\n"
    )


def _licence(weights: Weights | None) -> str:
    if weights is None:
        return "The training began with random weights: no licence of others' weights holds."
    if weights.licence is None:
        return "The licence of the weights that the training began with is not known."
    return (
        f"The training began with weights of the kind of {weights.release}: {weights.licence}. "
        "Their licence holds for what\nis derived of them, too."
    )


def _weights(weights: Weights | None) -> str:
    if weights is None:
        return "random initialisation"
    of = f"of the kind of {weights.release}" if weights.release else "of an unknown release"
    return f"{weights.file}, {of}" if weights.file else f"{weights.release or 'timm'}, from the hub"


def _channel(name: str, scheme: str) -> str:
    return f"{name} ({scheme.removesuffix('Normalization')})"


def _dice(dice: Dice | None) -> str:
    if dice is None:
        return "not validated"
    return f"{_score(dice.mean)} (fold {', '.join(dice.folds)}: {dice.cases} cases)"


def _classes(dice: Dice | None) -> list[tuple[str, Score]]:
    return list(dice.classes.items()) if dice else []


def _score(score: Score) -> str:
    nan = float("nan")
    return Spread(*(nan if v is None else v for v in (score.mean, score.spread))).text()


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in options.items())


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cell(text: str) -> str:
    """Keep a text in its cell, and from being markup."""
    for mark in "\\|<>`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text
