"""What the plans and the dataset.json of a stranger may say before they are installed.

nnU-Net and our `build_network` look names up that stand in these files, and call what they find
with arguments that stand there too. Only names that lead to nnU-Net's own classes and functions,
and to heads that are installed here as such, are let through; everything that stock prediction
reads has the type that it reads.
"""

import inspect
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from nnunet_vit_trainer.config.reading import check_model
from nnunet_vit_trainer.config.schema import DecoderConfig, ViTModelConfig
from vit_backbone import UserError, available_heads, find_head, quoted
from vit_backbone.heads.finding import STANDARD_ARGUMENTS, is_installed_head

from .named_code import check_named_code
from .schema import Dataset, Plans

# What build_network passes itself, and what would make it read a file.
_NOT_FROM_PLANS = {"num_classes", "in_channels", "pretrained", "checkpoint_path"}
_OF_BUILD_NETWORK = {"head", "strides"}
_FROM_PLANS = (STANDARD_ARGUMENTS - _NOT_FROM_PLANS) | _OF_BUILD_NETWORK


def check_foreign(
    plans: dict[str, Any], dataset: dict[str, Any], source: str, head: str | None = None
) -> None:
    """Refuse a stranger's plans and dataset.json that stock prediction could or should not use.

    Args:
        plans: they have passed `model_folder.check_plans`.
        dataset: the content of ``dataset.json``.
        source: where both are from, for messages.
        head: a module that may be imported as the head, beside the installed heads.

    Raises:
        UserError: a key that is missing or has the wrong type; a name that leads out of nnU-Net;
            a head that is not installed; an option that it does not know.
    """
    _check_types(Plans, plans, f"{source}: plans.json")
    _check_types(Dataset, dataset, f"{source}: dataset.json")
    (settings,) = plans["configurations"].values()
    _check_channels(plans, settings, dataset, source)
    arguments = settings["architecture"]["arch_kwargs"]
    _check_head(arguments, source, head)
    check_named_code(plans, settings, dataset, source)


def _check_types(schema: type[BaseModel], content: Any, source: str) -> None:
    try:
        TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part)[:60] for part in problem["loc"])
        got = "" if problem["type"] == "missing" else f", got {quoted(problem['input'])}"
        raise UserError(f"{source}: {quoted(place)[1:-1]}: {problem['msg']}{got}") from error


def _check_channels(
    plans: dict[str, Any], settings: dict[str, Any], dataset: dict[str, Any], source: str
) -> None:
    names = dataset.get("modality", dataset.get("channel_names")) or {}
    norm = (settings["architecture"]["arch_kwargs"].get("backbone_options") or {}).get("input_norm")
    properties = plans["foreground_intensity_properties_per_channel"]
    if not (
        names
        and len(names) == len(settings["normalization_schemes"])
        and len(names) <= len(settings["use_mask_for_norm"])
        and all(str(i) in properties for i in range(len(names)))
        and all(len(norm[part]) in (1, len(names)) for part in ("mean", "std") if norm)
    ):
        raise UserError(
            f"{source}: dataset.json names {len(names)} channels; normalization_schemes, "
            "use_mask_for_norm, foreground_intensity_properties_per_channel or input_norm in "
            "plans.json are for another number"
        )


def _check_head(arguments: dict[str, Any], source: str, allowed: str | None) -> None:
    """Let no import happen that the receiver did not choose: importing a module runs it."""
    head = arguments["head"]
    if not is_installed_head(head) and head != allowed:
        raise UserError(
            f"{source}: its head {quoted(head)} is not installed here (there are "
            f"{', '.join(available_heads())}); install it, or, if it is a module that you know and "
            "trust, name it with --head"
        )
    options = {n: v for n, v in arguments.items() if n not in _FROM_PLANS}
    refused = sorted(options.keys() & _NOT_FROM_PLANS)
    if refused:
        raise UserError(f"{source}: plans.json: arch_kwargs may not hold {', '.join(refused)}")
    # The factories warn of an option that they do not know; here it is another network.
    taken = inspect.signature(find_head(head)).parameters.keys() | _OF_BUILD_NETWORK
    if untaken := sorted((arguments.keys() & _FROM_PLANS) - taken):
        raise UserError(f"{source}: its head {quoted(head)} does not take {', '.join(untaken)}")
    check_model(ViTModelConfig(model_path=head, decoder=DecoderConfig(**options)), source)
