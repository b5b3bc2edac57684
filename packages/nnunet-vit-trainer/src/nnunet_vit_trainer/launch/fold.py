"""Train one fold in this process, alone or as one of several.

What nnU-Net's `run_training` does, but that takes CUDA, and the global rank as the device's
number, for several processes. torch and nnU-Net are imported in the functions: the checks come
first.
"""

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nnunet_vit_trainer.checkpoints.model_folder import BEST, FINAL
from nnunet_vit_trainer.plans.datasets import environment
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.training.ending.stop import signals_wait
from nnunet_vit_trainer.training.shortage.disk import check_writable, disk_in_one_line
from vit_backbone import UserError

from .collector import collector_paused
from .quiet import warnings_alone
from .request import Request

if TYPE_CHECKING:
    from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit


def train_fold(request: Request, dataset: str, plans: dict[str, Any], folder: str) -> None:
    """Train (or resume) and validate.

    Args:
        request: what was asked.
        dataset: as `Prepared` has it, like the next.
        plans: derived.
        folder: of all folds' results, which the run's first process has made.

    Raises:
        UserError: the data or the results are not on this machine, or the weights do not fit; or
            the run went short of memory, disk, data or data workers.
    """
    identifier = plans["configurations"][request.configuration]["data_identifier"]
    data = Path(environment("nnUNet_preprocessed"), dataset, identifier)
    cases = (plans[PLANS_KEY].get("data") or {}).get("cases")
    with (
        disk_in_one_line(Path(folder), data, cases),
        warnings_alone() if request.quiet else contextlib.nullcontext(),
    ):
        _train_fold(request, dataset, plans, folder)


def _train_fold(request: Request, dataset: str, plans: dict[str, Any], folder: str) -> None:
    with collector_paused():
        import torch
        import torch.distributed as dist
        from torch.backends import cudnn

        from nnunet_vit_trainer.checkpoints.nnunet_json import json_written_whole
        from nnunet_vit_trainer.training.compiling import compiler_in_one_line
        from nnunet_vit_trainer.training.shortage.memory import within_memory
        from vit_backbone.vits.unfilled import weights_follow

    if request.device == "cuda":
        torch.set_num_threads(1)  # as nnU-Net's own command: more do not help on a GPU
    trainer = _make_trainer(request, dataset, plans, folder)
    if request.pretrained_weights:
        with weights_follow():
            trainer.initialize()
        _load_all_but_classifiers(trainer, Path(request.pretrained_weights))
    _load_checkpoint(trainer, request)
    cudnn.deterministic = False
    cudnn.benchmark = torch.cuda.is_available()
    with json_written_whole(), compiler_in_one_line():
        if dist.is_initialized():
            _write_split(trainer)
        if request.mode != "validate":
            _take_steps(trainer)
        if request.with_best:
            _load_best(trainer)
        within_memory(trainer, lambda: trainer.perform_actual_validation(request.probabilities))


def _load_checkpoint(trainer: "nnUNetTrainer_vit", request: Request) -> None:
    from nnunet_vit_trainer.checkpoints.newest import newest_checkpoint
    from nnunet_vit_trainer.training.shortage.memory import within_memory

    file = None
    if request.mode == "new":
        _warn_of_replaced(trainer)
    if request.mode == "validate":
        file = Path(trainer.output_folder, FINAL)
    if request.mode == "continue":
        file = newest_checkpoint(Path(trainer.output_folder))
        trainer.print_to_log_file(f"--c: from {file.name if file else 'the start, no checkpoint'}")
    if file is not None:
        within_memory(trainer, lambda: trainer.load_checkpoint(str(file)))


def _warn_of_replaced(trainer: "nnUNetTrainer_vit") -> None:
    from nnunet_vit_trainer.checkpoints.newest import NAMES

    folder = Path(trainer.output_folder)
    there = [name for name in NAMES if (folder / name).is_file()]
    if not there:
        return
    what, remedy = f"a training that did not end ({there[0]})", "go on with it, add --c"
    if FINAL in there:
        what, remedy = "a finished training", "keep it, copy the config to another name"
    trainer.print_to_log_file(
        f"WARNING: {folder} holds {what}, which this new one replaces; Ctrl-C twice now, and to "
        f"{remedy}"
    )


def _load_best(trainer: "nnUNetTrainer_vit") -> None:
    """Take the best weights, and keep the log of the whole training, which the report draws."""
    logged = trainer.logger.get_checkpoint()
    trainer.load_checkpoint(str(Path(trainer.output_folder, BEST)))
    trainer.validated = BEST
    trainer.logger.load_checkpoint(logged)


def _take_steps(trainer: "nnUNetTrainer_vit") -> None:
    from nnunet_vit_trainer.training.oversight.cases import name_what_failed_in_workers
    from nnunet_vit_trainer.training.shortage.memory import within_memory

    try:
        within_memory(trainer, trainer.run_training)
    except Exception as error:
        signals_wait(False)  # for a step that does not come
        name_what_failed_in_workers(trainer, error)
        raise
    finally:
        _stop_data_workers(trainer)


def _make_trainer(
    request: Request, dataset: str, plans: dict[str, Any], folder: str
) -> "nnUNetTrainer_vit":
    import torch

    from nnunet_vit_trainer.training import trainer as trainers
    from nnunet_vit_trainer.training.oversight.progress import SHOWN, shown_on

    data = Path(environment("nnUNet_preprocessed"), dataset)
    for needed in (data, Path(folder)):
        if not needed.is_dir():
            raise UserError(
                f"{socket.gethostname()} does not see {needed}; nnUNet_preprocessed and "
                "nnUNet_results must lie where all machines see them"
            )
    check_writable(Path(folder, f"fold_{request.fold}"))
    SHOWN.set(shown_on(Console(), request.quiet))
    trainer = getattr(trainers, request.trainer)(
        plans=plans | {"continue_training": request.mode == "continue"},
        configuration=request.configuration,
        fold=request.fold,
        dataset_json=read_json(data / "dataset.json"),
        device=torch.device(request.device),
    )
    trainer.disable_checkpointing = not request.checkpoints
    return trainer


def _load_all_but_classifiers(trainer: "nnUNetTrainer_vit", file: Path) -> None:
    """Do as nnU-Net's `load_pretrained_weights`, which in a group reads to the rank's CUDA device.

    Raises:
        UserError: weights that are not the network's.
    """
    import torch

    from nnunet_vit_trainer.checkpoints.content import read_safely, unwrap
    from vit_backbone.vits.unfilled import refuse_unfilled

    saved = read_safely(file, mapped=True)["network_weights"]
    network = unwrap(trainer.network)
    own = network.state_dict()
    wanted = [key for key in own if ".seg_layers." not in key]
    held = {key: value for key, value in dict(saved).items() if isinstance(value, torch.Tensor)}
    unfit = [key for key in wanted if key not in held or held[key].shape != own[key].shape]
    if unfit:
        raise UserError(
            f"-pretrained_weights {file} does not fit the network: {len(unfit)} of {len(wanted)} "
            f"tensors are missing or have another shape, such as {unfit[0]}"
        )
    if unknown := [key for key in held if key not in own and ".seg_layers." not in key]:
        raise UserError(
            f"-pretrained_weights {file} holds {len(unknown)} tensors that the network lacks, such "
            f"as {unknown[0]}; give the head the options that it was trained with (a UNETR of "
            "version 0.1.0: model.decoder.conv_bias: true)"
        )
    if bad := next((key for key in wanted if not held[key].isfinite().all()), None):
        raise UserError(f"-pretrained_weights {file}: {bad} is not finite")
    network.load_state_dict({key: held[key] for key in wanted}, strict=False)
    refuse_unfilled(network)
    trainer.print_to_log_file(f"Weights: {len(wanted)} of {len(own)} tensors from {file}")


def _write_split(trainer: "nnUNetTrainer_vit") -> None:
    """Let one rank write splits_final.json: the others would read it half written."""
    import torch.distributed as dist

    if trainer.local_rank == 0:
        trainer.do_split()
    dist.barrier()


def _stop_data_workers(trainer: "nnUNetTrainer_vit") -> None:
    """Stop them as nnU-Net does after the last epoch; their death would be reported as an error."""
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
