"""Train: check everything, derive the plans, then train in this process or in several."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from vit_backbone import UserError

from .backbones import find_backbone, recorded_backbone
from .config_file import find_config, load_config
from .continuation import describe_data, leave_unnamed, refuse_other_model
from .datasets import environment, find_dataset, read_json, read_plans
from .fold import train_fold
from .plans import PLANS_KEY, derive_plans, derived_plans_name

DEFAULT_TRAINER = "nnUNetTrainerNoDeepSupervision_vit"
TRAINERS = (DEFAULT_TRAINER, "nnUNetTrainer_vit")


def run_training_vit(
    dataset_name_or_id: str | int,
    configuration: str,
    fold: int | str,
    config_path: str | Path,
    *,
    trainer_class_name: str = DEFAULT_TRAINER,
    plans_identifier: str = "nnUNetPlans",
    pretrained_weights: str | None = None,
    num_gpus: int = 1,
    export_validation_probabilities: bool = False,
    continue_training: bool = False,
    only_run_validation: bool = False,
    disable_checkpointing: bool = False,
    val_with_best: bool = False,
    device: str = "cuda",
) -> Path:
    """Train one fold (or resume, or only validate it) and return its results folder.

    Args:
        dataset_name_or_id: as in nnU-Net, planned and preprocessed.
        configuration: a 2D configuration of the plans, such as ``2d``.
        fold: 0 to 4, or ``"all"``.
        config_path: a YAML file, or the name of a shipped config.
        trainer_class_name: one of `TRAINERS`.
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

    Raises:
        UserError: anything that the user can mend; nothing has been trained then, unless a
            process of several was lost.
    """
    torchruns = _processes_of_torchrun(num_gpus)
    prepare = partial(
        _prepare,
        dataset_name_or_id,
        configuration,
        fold,
        config_path,
        trainer_class_name,
        plans_identifier,
        pretrained_weights,
        torchruns or num_gpus,
        continue_training,
        only_run_validation,
        disable_checkpointing,
        val_with_best,
        device,
    )
    train = partial(
        train_fold,
        configuration=configuration,
        fold=str(fold),
        trainer_class_name=trainer_class_name,
        pretrained_weights=pretrained_weights,
        export_validation_probabilities=export_validation_probabilities,
        continue_training=continue_training,
        only_run_validation=only_run_validation,
        disable_checkpointing=disable_checkpointing,
        val_with_best=val_with_best,
        device=device,
    )
    if torchruns:
        from .ranks import run_rank

        dataset, plans_name = run_rank(device, prepare, train)
    else:
        dataset, plans_name = prepare()
        if num_gpus == 1:
            train(dataset, plans_name)
        else:
            from .ranks import launch

            launch(num_gpus, device, train, dataset, plans_name)
    return _results_folder(dataset, trainer_class_name, plans_name, configuration) / f"fold_{fold}"


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


def _prepare(
    dataset_name_or_id: str | int,
    configuration: str,
    fold: int | str,
    config_path: str | Path,
    trainer_class_name: str,
    plans_identifier: str,
    pretrained_weights: str | None,
    processes: int,
    continue_training: bool,
    only_run_validation: bool,
    disable_checkpointing: bool,
    val_with_best: bool,
    device: str,
) -> tuple[str, str]:
    """Check everything, write the derived plans, and return the dataset's name and theirs."""
    config = load_config(config_path)
    _check_arguments(
        fold,
        trainer_class_name,
        pretrained_weights,
        continue_training,
        only_run_validation,
        disable_checkpointing,
        val_with_best,
    )
    dataset, dataset_folder = find_dataset(dataset_name_or_id)
    plans = read_plans(dataset_folder, plans_identifier, configuration)
    config_name = find_config(config_path).stem
    deep_supervision = trainer_class_name != DEFAULT_TRAINER
    plans_name = derived_plans_name(plans["plans_name"], config_name, deep_supervision)
    results = _results_folder(dataset, trainer_class_name, plans_name, configuration)
    fold_folder = results / f"fold_{fold}"
    check_device(device, processes)
    if only_run_validation and not (fold_folder / "checkpoint_final.pth").is_file():
        raise UserError(
            f"--val needs a finished training; there is no {fold_folder}/checkpoint_final.pth"
        )
    resumes = continue_training and any(fold_folder.glob("checkpoint_*.pth"))
    existing = read_json(results / "plans.json") if (results / "plans.json").is_file() else None
    if existing is not None and (resumes or only_run_validation):
        backbone, weights = recorded_backbone(config.model, existing)
    else:
        backbone, weights = find_backbone(config.model, pretrained_weights)
    derived = derive_plans(
        plans,
        configuration,
        config_name,
        config,
        backbone,
        weights,
        deep_supervision=deep_supervision,
    )
    settings = derived["configurations"][configuration]
    derived[PLANS_KEY]["data"] = describe_data(dataset_folder, settings["data_identifier"])
    if existing is not None:
        leave_unnamed(derived, existing, set(config.model.decoder.options()))
        refuse_other_model(derived, existing, results)
    _check_batch(settings["batch_size"], processes)
    _try_to_build(settings["architecture"]["arch_kwargs"])
    _write_plans(derived, dataset_folder / f"{plans_name}.json")
    return dataset, plans_name


def _results_folder(dataset: str, trainer: str, plans_name: str, configuration: str) -> Path:
    folder = Path(environment("nnUNet_results"), dataset)
    return folder / f"{trainer}__{plans_name}__{configuration}"


def _check_batch(batch_size: int, processes: int) -> None:
    """Refuse shares of unequal size: nnU-Net gathers the Dice of each image over the ranks."""
    if batch_size % processes:
        less = batch_size - batch_size % processes
        nearest = " or ".join(str(size) for size in (less, less + processes) if size)
        raise UserError(
            f"a batch of {batch_size} cannot be shared equally by the {processes} processes of "
            f"-num_gpus {processes} (or torchrun); set train.batch_size to {nearest}"
        )


def _try_to_build(arguments: dict[str, Any]) -> None:
    """Build the network without memory, so that what it refuses is said before any work."""
    import torch

    from .network import build_network

    with torch.device("meta"):
        build_network(1, 2, **arguments)


def _write_plans(plans: dict[str, Any], file: Path) -> None:
    """Write in one go: folds that start together read this file while others write it."""
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(plans, indent=4), encoding="utf-8")
    unfinished.replace(file)


def _check_arguments(
    fold: int | str,
    trainer: str,
    pretrained_weights: str | None,
    continues: bool,
    validates: bool,
    no_checkpoints: bool,
    val_with_best: bool,
) -> None:
    if str(fold) != "all" and not str(fold).isdecimal():
        raise UserError(f"fold {fold!r}: a number (0 to 4) or 'all' is expected")
    if trainer not in TRAINERS:
        raise UserError(f"trainer {trainer!r} is not ours; -tr takes {' or '.join(TRAINERS)}")
    if continues and validates:
        raise UserError("--c and --val exclude each other")
    if continues and pretrained_weights:
        raise UserError("--c and -pretrained_weights exclude each other")
    if no_checkpoints and val_with_best:
        raise UserError("--disable_checkpointing and --val_best exclude each other")
    if pretrained_weights and not Path(pretrained_weights).is_file():
        raise UserError(f"-pretrained_weights {pretrained_weights}: no such file")


def check_device(device: str, processes: int) -> None:
    """Refuse a device that is not there."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available; use -device cpu (or mps)")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("no MPS device is available; use -device cpu (or cuda)")
    if device == "mps" and processes > 1:
        raise UserError(f"{processes} processes need -device cuda or cpu; mps has one device")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    if device == "cuda" and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes on this machine (-num_gpus or torchrun's --nproc-per-node) need as "
            f"many CUDA devices; there are {torch.cuda.device_count()}"
        )
