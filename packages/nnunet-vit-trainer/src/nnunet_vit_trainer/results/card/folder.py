"""The card of a trained model's folder."""

from pathlib import Path

from nnunet_vit_trainer.checkpoints.model_folder import named_folder, read_model
from nnunet_vit_trainer.results.folds import (
    FINAL,
    SUMMARY,
    Dice,
    Fold,
    folds_in,
    members_among,
    read_dice,
)
from vit_backbone import UserError, reason_of

from .facts import card_of
from .schema import ModelCard


def card_of_folder(folder: Path) -> ModelCard:
    """Make the card of a trained model's folder, from any results folder.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``.

    Raises:
        UserError: no such results, or broken ones.
    """
    folder = named_folder(folder)
    plans, dataset = read_model(folder)
    folds = folds_in(folder)
    checkpoint = checkpoint_of(folds)
    found, notes = read_validations(folds, checkpoint)
    finished = [fold.name for fold in folds if (fold.folder / checkpoint).is_file()]
    unfinished = [fold.name for fold in folds if not fold.is_finished]
    if checkpoint != FINAL:
        notes.append(f"{checkpoint} alone: exported so, or the training is not at its end")
    elif unfinished:
        notes.append(f"not trained to the end: fold {', '.join(unfinished)}")
    return card_of(
        plans,
        dataset,
        [fold.name for fold in folds],
        finished,
        found,
        name=folder.name,
        kind="results",
        source=str(folder),
        checkpoint=checkpoint,
        notes=notes,
    )


def members_of(folder: Path) -> list[str]:
    """Name the folds of a model that predict together, as its card's commands do.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``.
    """
    folds = folds_in(folder)
    found, _ = read_validations(folds, checkpoint_of(folds))
    return members_among([fold.name for fold in folds], found)


def checkpoint_of(folds: list[Fold]) -> str:
    """Return the checkpoint that a prediction takes: the final one, or the only one of all folds.

    Args:
        folds: of one model.
    """
    names = [{file.name for file in fold.folder.glob("checkpoint_*.pth")} for fold in folds]
    there = set().union(*names)
    return there.pop() if len(there) == 1 and all(names) else FINAL


def read_validations(
    folds: list[Fold], checkpoint: str = FINAL
) -> tuple[dict[str, Dice], list[str]]:
    """Read what folds' validations found, and note those that cannot be read.

    Args:
        folds: of one model.
        checkpoint: whose validations; one of another is noted, and left out.
    """
    found, notes = {}, []
    for fold in folds:
        if not fold.is_validated:
            continue
        try:
            file = fold.folder / SUMMARY
            source = f"fold {fold.name}: summary.json"
            found[fold.name] = read_dice(file.read_bytes(), source, checkpoint)
        except (OSError, UserError) as error:
            notes.append(f"not read: {reason_of(error)}")
    return found, notes
