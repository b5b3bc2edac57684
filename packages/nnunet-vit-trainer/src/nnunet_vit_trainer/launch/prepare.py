"""Everything before the training: the checks, the cheap ones first, and the derived plans."""

import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.config.reading import find_config, load_config
from nnunet_vit_trainer.plans.continuation import describe_data, leave_unnamed, refuse_other_model
from nnunet_vit_trainer.plans.datasets import environment, find_dataset, read_plans
from nnunet_vit_trainer.plans.derive import PLANS_KEY, derive_plans, derived_plans_name, settings_of
from vit_backbone import UserError

from .backbones import (
    as_recorded,
    asked_backbone,
    find_backbone,
    recorded_backbone,
)
from .checks import (
    DEFAULT_TRAINER,
    check_arguments,
    check_batch,
    check_device,
    check_fold,
)
from .claim import check_plans_file, claim_results, owned_plans, write_json

# A network of more parameters than this was not meant; the largest backbone has 6.7 billion.
_MOST_PARAMETERS = 50 * 10**9


def prepare(
    claims: contextlib.ExitStack,
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
) -> tuple[dict[str, Any], str]:
    """Check everything, derive the plans and write them.

    Args:
        claims: holds the results folder for this run until it is closed.
        dataset_name_or_id: as in `run_training_vit`, like the others.
        configuration: see there.
        fold: a number, or ``"all"``.
        config_path: see there.
        trainer_class_name: see there.
        plans_identifier: see there.
        pretrained_weights: see there.
        processes: that will train.
        continue_training: see there.
        only_run_validation: see there.
        disable_checkpointing: see there.
        val_with_best: see there.
        device: see there.

    Returns:
        The derived plans, as JSON holds them, and the results folder of all folds.

    Raises:
        UserError: anything that the user can mend.
    """
    config = load_config(config_path)
    check_arguments(
        trainer_class_name,
        pretrained_weights,
        continue_training,
        only_run_validation,
        disable_checkpointing,
        val_with_best,
    )
    dataset, dataset_folder = find_dataset(dataset_name_or_id)
    plans = read_plans(dataset_folder, plans_identifier, configuration)
    settings = settings_of(plans, configuration)
    data = describe_data(dataset_folder, settings["data_identifier"])
    check_batch(config.train.batch_size or settings["batch_size"], processes)
    config_name = find_config(config_path).stem
    deep_supervision = trainer_class_name != DEFAULT_TRAINER
    plans_name = derived_plans_name(plans["plans_name"], config_name, deep_supervision)
    plans_file = dataset_folder / f"{plans_name}.json"
    check_plans_file(plans_file)
    results = Path(
        environment("nnUNet_results"),
        dataset,
        f"{trainer_class_name}__{plans_name}__{configuration}",
    )
    existing = owned_plans(results)
    resumes = _finds_checkpoints(
        results / f"fold_{fold}", continue_training, only_run_validation, val_with_best
    )
    if not resumes:
        check_fold(fold, dataset_folder, settings["data_identifier"])
    check_device(device, processes)
    derive = partial(
        derive_plans,
        plans,
        configuration,
        config_name,
        config,
        deep_supervision=deep_supervision,
    )
    tried = None
    if existing is not None and resumes:
        backbone, weights = recorded_backbone(config.model, existing)
    else:
        # Weights may have to be downloaded: before that, what can be said without them.
        tried = derive(*asked_backbone(config.model, pretrained_weights))["configurations"]
        try_to_build(tried[configuration])
        backbone, weights = find_backbone(config.model, pretrained_weights)
        if existing is not None:
            backbone = as_recorded(backbone, weights, existing)
    derived = derive(backbone, weights)
    derived[PLANS_KEY]["data"] = data
    derived = json.loads(json.dumps(derived))  # existing ones were: JSON has no tuples
    if existing is not None:
        leave_unnamed(derived, existing, set(config.model.decoder.options()))
        refuse_other_model(derived, existing, results)
    if derived["configurations"] != tried:
        try_to_build(derived["configurations"][configuration], allow_hybrid=resumes)
    check_plans_file(plans_file)  # again: fetching weights may have taken hours
    if not only_run_validation:
        claims.enter_context(claim_results(results, derived))
    write_json(derived, plans_file)
    return derived, str(results)


def _finds_checkpoints(fold_folder: Path, continues: bool, validates: bool, best: bool) -> bool:
    """Tell whether this run goes on from checkpoints; refuse to validate where there are none."""
    wanted = ["final"] if validates else []
    wanted += ["best"] if validates and best else []
    for name in wanted:
        if not (fold_folder / f"checkpoint_{name}.pth").is_file():
            raise UserError(
                f"--val needs a finished training; there is no {fold_folder}/checkpoint_{name}.pth"
            )
    return validates or (continues and any(fold_folder.glob("checkpoint_*.pth")))


def try_to_build(settings: dict[str, Any], *, allow_hybrid: bool = False) -> None:
    """Build the network without memory, so that what it refuses is said before any work.

    Args:
        settings: the configuration of derived plans.
        allow_hybrid: for a run that version 0.1.0 began; see `create_backbone`.

    Raises:
        UserError: options that the backbone or the head refuses, or sizes that no machine holds.
    """
    import torch

    from nnunet_vit_trainer.network import build_network

    try:
        with torch.device("meta"):
            arguments = settings["architecture"]["arch_kwargs"]
            channels = len(settings["normalization_schemes"])
            network = build_network(channels, 2, allow_hybrid=allow_hybrid, **arguments)
    except (RuntimeError, OverflowError) as error:  # sizes that no tensor has
        raise UserError(f"the network of this config cannot be built: {error}") from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > _MOST_PARAMETERS:
        raise UserError(
            f"the network of this config would have {parameters:.1e} parameters; "
            "see model.decoder and lora"
        )
