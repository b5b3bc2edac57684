"""Everything before the training: the checks, the cheap ones first, and the derived plans."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.config.catalogue import shipped_configs
from nnunet_vit_trainer.config.reading import find_config, load_config
from nnunet_vit_trainer.config.schema import ViTnnUNetConfig
from nnunet_vit_trainer.plans.continuation import describe_data, leave_unnamed, refuse_other_model
from nnunet_vit_trainer.plans.datasets import (
    environment,
    find_dataset,
    read_dataset_json,
    read_plans,
)
from nnunet_vit_trainer.plans.derive import PLANS_KEY, derive_plans, derived_plans_name, settings_of
from nnunet_vit_trainer.plans.neighbours import check_axis
from vit_backbone import UserError, WeightsError, quoted, shorten

from .backbones import (
    as_recorded,
    asked_backbone,
    find_backbone,
    hash_weights_ahead,
    recorded_backbone,
)
from .checks import (
    check_arguments,
    check_batch,
    check_channels,
    check_checkpoints,
    check_device,
    check_fold,
    check_stop_file,
    check_tile,
)
from .claim import (
    check_places,
    check_plans_file,
    claim_results,
    holds,
    owned_plans,
    write_json,
)
from .locks import hold_fold
from .request import Prepared, Request

# A network of more parameters than this was not meant; the largest backbone has 6.7 billion.
_MOST_PARAMETERS = 50 * 10**9


def prepare(request: Request) -> Prepared:
    """Check everything that was asked, and derive the plans; nothing is written.

    Args:
        request: see there.

    Raises:
        UserError: anything that the user can mend.
    """
    config = load_config(request.config)
    check_arguments(request)
    dataset, dataset_folder = find_dataset(request.dataset)
    plans = read_plans(dataset_folder, request.plans, request.configuration)
    settings = settings_of(plans, request.configuration)
    data = describe_data(dataset_folder, settings["data_identifier"])
    check_channels(data["channel_names"], settings["normalization_schemes"])
    check_axis(read_dataset_json(dataset_folder), plans, dataset_folder / "dataset.json")
    check_batch(config.train.batch_size or settings["batch_size"], request.processes)
    results = _results_folder(request, dataset_folder, plans["plans_name"])
    existing = owned_plans(results)
    fold_folder = results / f"fold_{request.fold}"
    resumes = _finds_checkpoints(fold_folder, request)
    if request.mode != "validate":
        check_stop_file(config.train.stop_file, fold_folder)
        if not request.checkpoints:
            check_checkpoints(fold_folder)
    check_fold(request.fold, dataset_folder, settings["data_identifier"], resumes=resumes)
    check_device(request.device, request.processes)
    _check_amp_dtype(config.train.amp_dtype, request.device)
    with _naming(request.config):
        derived, tried = _derive(request, config, plans, existing, resumes)
    derived[PLANS_KEY]["data"] = data
    derived = json.loads(json.dumps(derived))  # existing ones were: JSON has no tuples
    planned = derived["configurations"][request.configuration]
    if request.mode != "validate":
        check_tile(planned["patch_size"], planned["architecture"]["arch_kwargs"].get("strides"))
    if existing is not None:
        leave_unnamed(derived, existing, set(config.model.decoder.options()))
        refuse_other_model(derived, existing, results)
    check_places(derived, dataset_folder / f"{derived['plans_name']}.json", fold_folder)
    if derived["configurations"] != tried:
        try_to_build(planned, allow_hybrid=resumes)
    return Prepared(dataset, derived, str(results))


@contextlib.contextmanager
def claimed(prepared: Prepared, request: Request) -> Iterator[None]:
    """Own the fold and, if a run trains, the results; write the plans beside the data.

    A run that only validates needs no claim on the results, which are its config's already.

    Args:
        prepared: of `prepare`.
        request: that it was prepared for.

    Raises:
        UserError: another config's results lie there, or its run is under way, or another run of
            this fold; or the disk is full.
    """
    dataset, plans, folder = prepared
    file = Path(environment("nnUNet_preprocessed"), dataset, f"{plans['plans_name']}.json")
    check_plans_file(file)  # again: fetching weights may have taken hours
    trains = request.mode != "validate"
    with (
        claim_results(Path(folder), plans) if trains else contextlib.nullcontext(),
        hold_fold(Path(folder, f"fold_{request.fold}")),
    ):
        if not holds(file, plans):  # its folder may be read-only then
            write_json(plans, file)
        yield


@contextlib.contextmanager
def _naming(config: str | Path) -> Iterator[None]:
    """Say whose the mistake is that only the backbone, the head or the data could tell."""
    try:
        yield
    except UserError as error:
        remedy = ""
        if isinstance(error, WeightsError) and str(config) in shipped_configs():
            remedy = f": nnUNetv2_configs_vit --write {config} --checkpoint_path FILE"
        raise type(error)(f"{shorten(config, 100)}: {error}{remedy}") from error


def _check_amp_dtype(amp_dtype: str, device: str) -> None:
    from nnunet_vit_trainer.training.step import resolve_amp_dtype  # torch

    resolve_amp_dtype(amp_dtype, device)


def _results_folder(request: Request, dataset_folder: Path, plans_name: str) -> Path:
    """Name the folder of all folds; refuse one whose plans file would replace somebody else's."""
    config_name = find_config(request.config).stem
    name = derived_plans_name(plans_name, config_name, request.deep_supervision)
    check_plans_file(dataset_folder / f"{name}.json")
    folder = f"{request.trainer}__{name}__{request.configuration}"
    if folder.count("__") != 2:
        raise UserError(
            f"the results would lie in {quoted(folder)}, a name that nnU-Net splits at '__' into "
            "trainer, plans and configuration: no '__' in plans_name or the configuration's name, "
            "and no '_' at the end of plans_name"
        )
    return Path(environment("nnUNet_results"), dataset_folder.name, folder)


def _derive(
    request: Request,
    config: ViTnnUNetConfig,
    plans: dict[str, Any],
    existing: dict[str, Any] | None,
    resumes: bool,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Derive the plans; also return the configurations that were built before weights were sought.

    Args:
        request: see there.
        config: its own.
        plans: the dataset's.
        existing: those of the results, if there are any.
        resumes: whether this run goes on from them.
    """
    derive = partial(
        derive_plans,
        plans,
        request.configuration,
        find_config(request.config).stem,
        config,
        deep_supervision=request.deep_supervision,
    )
    if existing is not None and resumes:
        return derive(*recorded_backbone(config.model, existing)), None
    # Weights may have to be downloaded: before that, what can be said without them.
    tried = derive(*asked_backbone(config.model, request.pretrained_weights))["configurations"]
    hash_weights_ahead(config.model, request.pretrained_weights)  # beside the imports of a build
    recompute = config.train.grad_checkpointing_head
    try_to_build(tried[request.configuration], recompute_head=recompute)
    backbone, weights = find_backbone(config.model, request.pretrained_weights)
    if existing is not None:
        backbone = as_recorded(backbone, weights, existing)
    return derive(backbone, weights), tried


def _finds_checkpoints(fold_folder: Path, request: Request) -> bool:
    """Tell whether this run goes on from checkpoints; refuse to validate where there are none."""
    validates = request.mode == "validate"
    wanted = ["final"] if validates else []
    wanted += ["best"] if validates and request.with_best else []
    for name in wanted:
        if not (fold_folder / f"checkpoint_{name}.pth").is_file():
            raise UserError(
                f"--val needs a finished training; there is no {fold_folder}/checkpoint_{name}.pth"
            )
    continues = request.mode == "continue"
    return validates or (continues and any(fold_folder.glob("checkpoint_*.pth")))


def try_to_build(
    settings: dict[str, Any], *, allow_hybrid: bool = False, recompute_head: bool = False
) -> None:
    """Build the network without memory, so that what it refuses is said before any work.

    Args:
        settings: the configuration of derived plans.
        allow_hybrid: for a run that version 0.1.0 began; see `create_backbone`.
        recompute_head: the head is to keep less for the backward pass.

    Raises:
        UserError: options that the backbone or the head refuses, or sizes that no machine holds.
    """
    from nnunet_vit_trainer.network import build_network, without_memory
    from vit_backbone.heads.recompute import set_recompute

    try:
        with without_memory():
            arguments = settings["architecture"]["arch_kwargs"]
            channels = len(settings["normalization_schemes"])
            network = build_network(channels, 2, allow_hybrid=allow_hybrid, **arguments)
    except (RuntimeError, OverflowError) as error:  # sizes that no tensor has
        raise UserError(f"the network of this config cannot be built: {error}") from error
    if recompute_head:
        set_recompute(network.head, f"train.grad_checkpointing_head: head {arguments['head']!r}")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > _MOST_PARAMETERS:
        raise UserError(
            f"the network of this config would have {parameters:.1e} parameters; "
            "see model.decoder and lora"
        )
