"""What the data give away: a sample of the preprocessed cases, and validations that are done."""

from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.training.oversight.cases import (
    EMPTY_MASKS,
    describe,
    faults_of,
    have_foreground,
    sample_of,
)
from nnunet_vit_trainer.training.oversight.verdict import find_emptiness
from vit_backbone import UserError

from .examination import Examination
from .problems import Problem

_KEY = "data"  # no key of the config mends them


def look_at_cases(trainer: Any, found: Examination) -> None:
    """Look at the channels, the pixels and the labels of a sample of the preprocessed cases.

    Args:
        trainer: constructed.
        found: added to.
    """
    names = _cases_of(trainer)
    sample = sample_of(names)
    faults = faults_of(trainer, sample, pixels=True)
    found.facts.append(("cases", f"{len(sample)} of {len(names)} looked at, {len(faults)} bad"))
    if faults:
        found.problems.append(Problem(_KEY, describe(faults)))
    elif not have_foreground(trainer, sample):
        found.problems.append(Problem(_KEY, EMPTY_MASKS.format(len(sample)), fatal=False))


def find_bad_cases(trainer: Any) -> Problem | None:
    """Look at all cases, where one that was not in the sample may be what a step failed of.

    Args:
        trainer: constructed.

    Returns:
        What is wrong with them; ``None`` of nothing.
    """
    faults = faults_of(trainer, _cases_of(trainer), pixels=False)
    return Problem(_KEY, describe(faults)) if faults else None


def _cases_of(trainer: Any) -> list[str]:
    folder = trainer.preprocessed_dataset_folder
    return sorted(infer_dataset_class(folder).get_identifiers(folder))


def look_at_validations(folder: Path, found: Examination) -> None:
    """Look at what earlier runs of this config predicted in their final validations.

    Args:
        folder: of the results of all folds; it need not exist.
        found: added to.
    """
    for file in sorted(folder.glob("fold_*/validation/summary.json")):
        try:
            line = find_emptiness(read_json(file))
        except UserError as error:  # of a run that was killed; the next one writes it anew
            line = str(error)
        if line is not None:
            found.problems.append(Problem(_KEY, f"{file.parts[-3]}: {line}", fatal=False))
