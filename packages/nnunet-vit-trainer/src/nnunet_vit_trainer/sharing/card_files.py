"""The model card that lies in every export: ``README.md``, and ``CITATION.bib``."""

from pathlib import Path
from typing import Any

from nnunet_vit_trainer.checkpoints.private_paths import without_paths
from nnunet_vit_trainer.results.card.facts import card_of
from nnunet_vit_trainer.results.card.folder import read_validations
from nnunet_vit_trainer.results.card.page import CARD, CITATION, markdown_of
from nnunet_vit_trainer.results.card.papers import bibtex_of
from nnunet_vit_trainer.results.folds import Fold

_INSTALL = (
    "nnUNetv2_install_pretrained_model_from_zip FILE.zip   # or: nnUNetv2_import_vit FILE.zip"
)
_COMPLETE = "nnUNetv2_import_vit FILE.zip --checkpoint_path FILE   # your copy of the base weights"


def card_files(
    name: str,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    folds: list[Path],
    *,
    checkpoint: str,
    complete: bool,
) -> dict[str, str]:
    """Write a model's card as the files of its export: name -> text.

    Args:
        name: of the model's folder, as it is exported.
        plans: as they are exported, without paths.
        dataset: the content of ``dataset.json``, likewise.
        folds: the folders of those that are exported.
        checkpoint: the name of what is exported of each.
        complete: whether the base weights are in it.

    Raises:
        UserError: plans whose values are of other types than a training writes.
    """
    of = [Fold(folder.name.removeprefix("fold_"), folder) for folder in folds]
    found, notes = read_validations(of, checkpoint)
    if not complete:
        notes.append("the base weights are not in it: the receiver adds a copy of the named file")
    names = [fold.name for fold in of]
    card = card_of(
        plans,
        dataset,
        names,
        names,
        found,
        name=name,
        kind="zip",
        source=name,
        checkpoint=checkpoint,
        notes=without_paths(notes),
    )
    text = markdown_of(card, _INSTALL if complete else _COMPLETE)
    return {CARD: text, CITATION: bibtex_of(card.papers)}
