"""What a step, a tile and the whole run cost."""

from typing import Any, NamedTuple

import torch

from nnunet_vit_trainer.checkpoints.content import unwrap
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.results.costs import forward_flop
from nnunet_vit_trainer.training.oversight.progress import duration
from nnunet_vit_trainer.training.shortage.fitting import fits_memory

from .examination import Examination
from .measure import predictor_of, seconds_of
from .problems import Problem

_DAY, _LONG = 24, 72
"""Hours; a run that takes longer than that is worth a note."""


class Seconds(NamedTuple):
    """What a training step takes.

    Attributes:
        step: of an optimizer step whose batches are there.
        loading: of one batch, by one process.
    """

    step: float
    loading: float


def tell_costs(
    trainer: Any, batch: dict[str, Any], seconds: Seconds, workers: int, found: Examination
) -> None:
    """Predict a tile, and say what it, a step and the whole run cost, or that memory is too small.

    Args:
        trainer: initialized; it is left as it was.
        batch: ``data`` (B, C, H, W), and ``target``, a tensor or a list of them.
        seconds: see there.
        workers: processes that would load the data.
        found: added to.
    """
    trainer.network.eval()
    if not fits_memory(lambda: _tell(trainer, batch, seconds, workers, found), trainer.device):
        found.problems.append(
            Problem(
                "train.patch_size",
                "a training step fits this device's memory, validating a batch or predicting a "
                "tile does not; use a smaller one, or a smaller train.batch_size",
            )
        )
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()


def _tell(
    trainer: Any, batch: dict[str, Any], seconds: Seconds, workers: int, found: Examination
) -> None:
    trainer.validation_step(_copied(batch))
    validation = seconds_of(lambda: trainer.validation_step(_copied(batch)), trainer.device)
    trainer.set_deep_supervision_enabled(False)
    train = trainer.plans_manager.plans[PLANS_KEY]["train"]
    batches = train["accumulate_steps"]
    tiles, loading = batches * trainer.batch_size, seconds.loading * batches
    hours = _hours(train, seconds.step, loading, workers, validation)
    found.facts += [
        ("one tile", _tile(trainer, batch, found)),
        (
            "one step",
            f"{seconds.step:.3g} s on {tiles} tiles; loading them takes {loading:.2g} s, "
            f"{say_who_loads(workers)} (nnUNet_n_proc_DA)",
        ),
        ("whole run", _say_whole_run(train, hours)),
    ]
    found.problems += long_run(train, hours)


def say_who_loads(workers: int) -> str:
    """Say who loads the data for a step, as a part of a sentence.

    Args:
        workers: ``nnUNet_n_proc_DA``; with 0 the training loads them itself.
    """
    if workers == 0:
        return "before each step: no worker does it meanwhile"
    return "by one worker" if workers == 1 else f"shared by {workers} workers"


def _tile(trainer: Any, batch: dict[str, Any], found: Examination) -> str:
    """Predict one, as the final validation does, and say what it costs."""
    image = batch["data"][:1].to(trainer.device)
    flop: list[int] = []
    counted = fits_memory(
        lambda: flop.append(forward_flop(unwrap(trainer.network), image)), trainer.device
    )
    work = f"{flop[0] / 1e9:.1f} GFLOP forward" if counted else "its GFLOP take too much memory"
    predictor = predictor_of(trainer)

    def predict() -> torch.Tensor:
        image = batch["data"][0][:, None]
        return torch.as_tensor(predictor.predict_sliding_window_return_logits(image))

    logits = predict()
    seconds = seconds_of(predict, trainer.device)
    if not torch.isfinite(logits).all():
        found.problems.append(
            Problem("model.input_norm", "the prediction of a training tile is not finite")
        )
    mirrored = 2 ** len(trainer.inference_allowed_mirroring_axes or ())
    return f"{work}; predicted with its {mirrored - 1} mirror images in {seconds:.3g} s"


def _hours(
    train: dict[str, Any], step: float, loading: float, workers: int, validation: float
) -> float:
    """Return what it takes; data are loaded by workers meanwhile, or, without any, before."""
    waiting = max(step, loading / workers) if workers else step + loading
    steps, validations = (train[f"num_{of}iterations_per_epoch"] for of in ("", "val_"))
    return (waiting * steps + validation * validations) * train["num_epochs"] / 3600


def _say_whole_run(train: dict[str, Any], hours: float) -> str:
    steps, validations = (train[f"num_{of}iterations_per_epoch"] for of in ("", "val_"))
    return (
        f"{duration(hours * 3600)}: {train['num_epochs']} epochs of {steps} steps and "
        f"{validations} of online validation"
    )


def long_run(train: dict[str, Any], hours: float) -> list[Problem]:
    """Note a run of days: nnU-Net's 1000 epochs are seldom needed.

    Args:
        train: resolved options.
        hours: of all epochs.
    """
    if hours < _LONG:
        return []
    epochs = max(1, int(train["num_epochs"] * _DAY / hours))
    text = f"the run takes {hours / _DAY:.0f} days here; {epochs} epochs would take one"
    return [Problem("train.num_epochs", text, fatal=False)]


def _copied(batch: dict[str, Any]) -> dict[str, Any]:
    """Copy the target, in which nnU-Net's validation overwrites the ignore label."""
    target = batch["target"]
    copied = [t.clone() for t in target] if isinstance(target, list) else target.clone()
    return {"data": batch["data"], "target": copied}
