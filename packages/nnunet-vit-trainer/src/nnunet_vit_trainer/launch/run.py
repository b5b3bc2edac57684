"""Train: check everything, derive the plans, then train in this process or in several."""

import contextlib
import os
from functools import partial
from pathlib import Path

from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER
from vit_backbone import UserError
from vit_backbone.weights.once import reading_once

from .checks import parse_fold
from .collector import collector_paused
from .fold import train_fold
from .prepare import claimed, prepare
from .request import Prepared, Request, mode_of


def run_training_vit(
    dataset_name_or_id: str | int,
    configuration: str,
    fold: int | str,
    config_path: str | Path,
    *,
    trainer_class_name: str = DEFAULT_TRAINER,
    plans_identifier: str = DEFAULT_PLANS,
    pretrained_weights: str | None = None,
    num_gpus: int = 1,
    export_validation_probabilities: bool = False,
    continue_training: bool = False,
    only_run_validation: bool = False,
    disable_checkpointing: bool = False,
    val_with_best: bool = False,
    device: str = "cuda",
    quiet: bool = False,
) -> Path:
    """Train one fold (or resume, or only validate it) and return its results folder.

    Args:
        dataset_name_or_id: as in nnU-Net, planned and preprocessed.
        configuration: a 2D configuration of the plans, such as ``2d``.
        fold: 0 to 4 (or what splits_final.json has), or ``"all"``.
        config_path: a YAML file, or the name of a shipped config.
        trainer_class_name: one of `request.TRAINERS`.
        plans_identifier: the dataset's own plans.
        pretrained_weights: an nnU-Net checkpoint to start from, instead of the config's weights.
        num_gpus: more than 1 trains in that many processes of this machine, each with a CUDA
            device of its own (or on the CPU). torchrun's processes are used as they are.
        export_validation_probabilities: nnU-Net's ``--npz``.
        continue_training: nnU-Net's ``--c``.
        only_run_validation: nnU-Net's ``--val``.
        disable_checkpointing: write no checkpoints.
        val_with_best: validate with checkpoint_best.
        device: ``cuda``, ``cpu`` or ``mps``.
        quiet: nothing but warnings on the console; the log file is whole.

    Raises:
        UserError: anything that the user can mend; nothing has been trained then, unless a
            process of several was lost.
    """
    torchruns = _processes_of_torchrun(num_gpus)
    request = Request(
        dataset=dataset_name_or_id,
        configuration=configuration,
        fold=parse_fold(fold),
        config=config_path,
        trainer=trainer_class_name,
        plans=plans_identifier,
        device=device,
        processes=torchruns or num_gpus,
        mode=mode_of(continue_training, only_run_validation),
        pretrained_weights=pretrained_weights,
        checkpoints=not disable_checkpointing,
        with_best=val_with_best,
        probabilities=export_validation_probabilities,
        quiet=quiet,
    )
    results = _train_under_torchrun(request) if torchruns else _train(request)
    return Path(results, f"fold_{request.fold}")


def _train(request: Request) -> str:
    """Train in this process, or in several that it starts, and return the results folder."""
    train = partial(train_fold, request)
    alone = request.processes == 1
    with reading_once() if alone else contextlib.nullcontext():
        with collector_paused():
            prepared = prepare(request)
        with claimed(prepared, request):
            if alone:
                train(*prepared)
            else:
                from .ranks import launch

                launch(request.processes, request.device, train, *prepared)
    return prepared.folder


def _train_under_torchrun(request: Request) -> str:
    """Do this process's part of what torchrun has started; only the first one prepares."""
    from .ranks import run_rank

    with reading_once(), contextlib.ExitStack() as claims:

        def prepare_and_claim() -> Prepared:
            with collector_paused():
                prepared = prepare(request)
            claims.enter_context(claimed(prepared, request))
            return prepared

        train = partial(train_fold, request)
        return Prepared(*run_rank(request.device, prepare_and_claim, train)).folder


def _processes_of_torchrun(num_gpus: int) -> int:
    """Return how many processes torchrun has started, of which this is one; 0 without it."""
    processes = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if num_gpus < 1:
        raise UserError(f"-num_gpus {num_gpus}: at least 1 is expected")
    if processes == 1:
        return 0
    if "LOCAL_RANK" not in os.environ:
        raise UserError("RANK and WORLD_SIZE are set, but not LOCAL_RANK; start with torchrun")
    if num_gpus not in (1, processes):
        raise UserError(
            f"-num_gpus {num_gpus}, but torchrun has started {processes} processes; leave it away"
        )
    return processes
