"""Look into an export without installing it: its plans and summaries are read, as data."""

import re
import zipfile
from pathlib import Path

from nnunet_vit_trainer.checkpoints.model_folder import CHECKPOINT_NAME, FOLD_NAME
from nnunet_vit_trainer.results.card.facts import card_of
from nnunet_vit_trainer.results.card.schema import ModelCard
from nnunet_vit_trainer.results.folds import FINAL, SUMMARY, Dice, order_of, read_dice
from vit_backbone import UserError, reason_of

from .archive import opened_export, read_member
from .contents import LARGEST_JSON, contents_of

_FOLD = re.compile(rf"({FOLD_NAME})/.+")
_CHECKPOINT = re.compile(rf"{FOLD_NAME}/({CHECKPOINT_NAME})")


def card_of_zip(zip_file: str | Path) -> ModelCard:
    """Make the card of an export, whoever made it; no checkpoint in it is opened.

    Args:
        zip_file: of `export_vit`.

    Raises:
        UserError: no such export, or one that `import_vit` would refuse for its names.
    """
    with opened_export(zip_file, "cannot be read") as archive:
        return _card(archive)


def _card(archive: zipfile.ZipFile) -> ModelCard:
    source = str(archive.filename)
    contents = contents_of(archive)
    matches = [match for file in contents.files if (match := _FOLD.fullmatch(file))]
    folds = sorted({m[1].removeprefix("fold_") for m in matches}, key=order_of)
    names = {match[1] for file in contents.files if (match := _CHECKPOINT.fullmatch(file))}
    checkpoint = FINAL if FINAL in names else min(names, default=FINAL)
    found: dict[str, Dice] = {}
    notes = ["install it first: nnUNetv2_import_vit ZIP (--checkpoint_path FILE for an adapter)"]
    for fold in folds:
        file = f"fold_{fold}/{SUMMARY}"
        if file not in contents.files:
            continue
        try:
            text = read_member(archive, contents.files[file], LARGEST_JSON)
            found[fold] = read_dice(text, f"fold {fold}: summary.json", checkpoint)
        except UserError as error:
            notes.append(f"not read: {reason_of(error)}")
    return card_of(
        contents.plans,
        contents.dataset,
        folds,
        [fold for fold in folds if f"fold_{fold}/{checkpoint}" in contents.files],
        found,
        name=contents.name,
        kind="zip",
        source=source,
        checkpoint=checkpoint,
        notes=notes,
    )
