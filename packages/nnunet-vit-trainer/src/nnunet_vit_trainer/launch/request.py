"""What is asked of a training, and what is prepared for it; neither changes any more."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER
from vit_backbone import UserError

TRAINERS = (DEFAULT_TRAINER, "nnUNetTrainer_vit")

Mode = Literal["new", "continue", "validate"]
"""Begin, go on from the latest checkpoint (nnU-Net's ``--c``), or only validate (``--val``)."""


@dataclass(frozen=True)
class Request:
    """One fold to train, as it was asked for.

    Attributes:
        dataset: its name or number, planned and preprocessed.
        configuration: a 2D configuration of the plans.
        fold: a number, or ``"all"``; see `checks.parse_fold`.
        config: a YAML file, or the name of a shipped config.
        trainer: one of `TRAINERS`.
        plans: the name of the dataset's own plans.
        device: ``cuda``, ``cpu`` or ``mps``.
        processes: that will train.
        mode: see `Mode`.
        pretrained_weights: an nnU-Net checkpoint to start from, instead of the config's weights.
        checkpoints: whether checkpoints are written.
        with_best: validate with checkpoint_best.
        probabilities: save those of the validation (nnU-Net's ``--npz``).
        quiet: nothing but warnings on the console; the log is whole.
    """

    dataset: str | int
    configuration: str
    fold: int | str
    config: str | Path
    trainer: str = DEFAULT_TRAINER
    plans: str = DEFAULT_PLANS
    device: str = "cuda"
    processes: int = 1
    mode: Mode = "new"
    pretrained_weights: str | None = None
    checkpoints: bool = True
    with_best: bool = False
    probabilities: bool = False
    quiet: bool = False

    @property
    def deep_supervision(self) -> bool:
        """Whether the head gets its auxiliary outputs."""
        return self.trainer != DEFAULT_TRAINER


class Prepared(NamedTuple):
    """What a training is done from, as JSON holds it: other ranks, on other machines, get it too.

    Attributes:
        dataset: its name, the folder's in nnUNet_preprocessed.
        plans: derived. Not their file: another run may replace that meanwhile.
        folder: of the results of all folds, ``<trainer>__<plans>__<configuration>``.
    """

    dataset: str
    plans: dict[str, Any]
    folder: str


def mode_of(continues: bool, validates: bool) -> Mode:
    """Return what nnU-Net's two flags mean.

    Raises:
        UserError: both are given.
    """
    if continues and validates:
        raise UserError("--c and --val exclude each other")
    if validates:
        return "validate"
    return "continue" if continues else "new"
