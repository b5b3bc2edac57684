"""The config file: where it is found, how it is read, and one line for what is wrong with it.

No torch here: a typo is answered before anything heavy is imported.
"""

import difflib
import json
import os
import re
import sys
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nnunet_vit_trainer.config.input_statistics import NAMES as INPUT_NORMS
from vit_backbone import (
    LAYER_PRESETS,
    MODEL_CONFIGS,
    UserError,
    find_head,
    head_options,
    resolve_backbone,
    shorten,
)

from .schema import DecoderConfig, ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
from .synonyms import SYNONYMS
from .yaml_file import read_yaml

# nnU-Net's folder names hold the trainer's and the plans' names beside it, 255 bytes in all.
_LONGEST_NAME = 100
# What pydantic writes between the keys of a problem's place.
_TYPES = re.compile(r"str|int|float|bool|none|literal|(function|list|dict|tuple|constrained)\W.*")
_HEAD_OPTIONS = ConfigDict(strict=True, allow_inf_nan=False)


class ConfigError(UserError):
    """A config that cannot be meant; the message names the file, the key and the remedy."""


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package, sorted."""
    folder = resources.files(__package__) / "shipped"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def find_config(file_or_name: str | Path) -> Path:
    """Locate a config file.

    Args:
        file_or_name: a path, or the name of a shipped config.

    Raises:
        ConfigError: neither is there, or the file's stem cannot name an nnU-Net plans file.
    """
    file, given = Path(file_or_name), shorten(file_or_name, 200)
    if not os.path.isfile(file) and str(file_or_name) in shipped_configs():
        file = Path(str(resources.files(__package__) / "shipped" / f"{file_or_name}.yaml"))
    if not os.path.isfile(file):
        raise ConfigError(
            f"{given}: no such file, and no shipped config of that name "
            f"({', '.join(shipped_configs())})"
        )
    if file.stem.endswith("_ds"):
        raise ConfigError(f"{given}: the ending '_ds' is kept for runs with deep supervision")
    if len(file.stem) > _LONGEST_NAME or not re.fullmatch(
        r"[A-Za-z0-9.-]+(_[A-Za-z0-9.-]+)*", file.stem
    ):
        raise ConfigError(
            f"{given}: the file's name becomes part of the plans' and the results' names, so use "
            f"up to {_LONGEST_NAME} letters, digits, '.', '-' and single '_' between them"
        )
    return file


def load_config(file_or_name: str | Path) -> ViTnnUNetConfig:
    """Read and check a config, the options of its head included.

    Args:
        file_or_name: a YAML file, or the name of a shipped config.

    Raises:
        ConfigError: unreadable, an unknown key, a wrong type, an impossible value or backbone
            size, or a head that is not installed.
    """
    file = find_config(file_or_name)
    source = shorten(file, 200)
    try:
        content = read_yaml(file)
    except UserError as error:
        raise ConfigError(f"{source}: {error}") from error
    _refuse_unknown_keys(content, ViTnnUNetConfig, "", source)
    try:
        # Strict validation takes nested mappings in JSON only, from Python it wants instances.
        config = TypeAdapter(ViTnnUNetConfig).validate_json(json.dumps(content))
    except ValidationError as error:
        raise ConfigError(_first_problem(error, "", source)) from error
    check_model(config.model, source)
    check_train(config.train, source)
    return config


def check_model(model: ViTModelConfig, source: str | Path) -> None:
    """Check what the dataclasses cannot know: the backbone's size and the head's own options.

    Args:
        model: the section to check.
        source: the file it came from, for messages.

    Raises:
        ConfigError: see `load_config`.
    """
    if model.backbone_size is not None and model.backbone not in MODEL_CONFIGS:
        raise ConfigError(
            f"{source}: model.backbone_size: {model.backbone!r} is no family "
            f"({', '.join(MODEL_CONFIGS)}) and has its size in its name; leave the key away"
        )
    try:
        resolve_backbone(model.backbone, model.backbone_size)
    except UserError as error:
        raise ConfigError(f"{source}: model.backbone_size: {error}") from error
    _check_choice(model.layer_indices, tuple(LAYER_PRESETS), "model.layer_indices", source)
    _check_choice(model.input_norm, INPUT_NORMS, "model.input_norm", source)
    try:
        factory = find_head(model.model_path)
    except UserError as error:
        raise ConfigError(f"{source}: model.model_path: {error}") from error
    known = head_options(factory)
    # By the class: an option that is named "options" hides the method until it is refused here.
    options = DecoderConfig.options(model.decoder)
    for name, value in options.items():
        key = f"model.decoder.{shorten(name)}"
        if name not in known:
            raise ConfigError(f"{source}: {key}: {_suggest(name, list(known))}")
        annotation = known[name].annotation
        if annotation is not known[name].empty:
            try:
                TypeAdapter(annotation, config=_HEAD_OPTIONS).validate_python(value)
            except ValidationError as error:
                raise ConfigError(_first_problem(error, key, source)) from error
    check = getattr(sys.modules[factory.__module__], "check_options", None)
    if check is not None:
        try:
            check(**options)
        except UserError as error:
            raise ConfigError(f"{source}: model.decoder.{error}") from error


def check_train(train: ViTTrainConfig, source: str | Path) -> None:
    """Check the keys of the recipe against each other.

    Args:
        train: the section to check.
        source: the file it came from, for messages.

    Raises:
        ConfigError: two keys that say the same, or epochs that there are not.
    """
    if train.backbone_lr is not None and train.backbone_lr_scale is not None:
        raise ConfigError(
            f"{source}: train.backbone_lr: it excludes train.backbone_lr_scale; keep one of them"
        )
    begins = train.head_first_epochs + (train.warmup_epochs or 0)
    if begins >= train.num_epochs:
        raise ConfigError(
            f"{source}: train.num_epochs: {train.num_epochs} epochs end before the "
            f"{begins} of head_first_epochs and warmup_epochs do"
        )


def _check_choice(value: Any, names: tuple[str, ...], key: str, source: str | Path) -> None:
    if isinstance(value, str) and value not in names:
        value = shorten(value)
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(names)}"
        raise ConfigError(f"{source}: {key}: unknown {value!r}; {hint}")


def _refuse_unknown_keys(content: Any, schema: type, prefix: str, source: str) -> None:
    if not isinstance(content, dict) or schema is DecoderConfig:
        return  # a wrong type is pydantic's to name, and the head's options the head's
    hints = get_type_hints(schema)
    known = [f.name for f in fields(schema)]
    for name, value in content.items():
        if name not in known:
            raise ConfigError(f"{source}: {prefix}{shorten(name)}: {_suggest(name, known)}")
        if is_dataclass(hints[name]):
            _refuse_unknown_keys(value, hints[name], f"{prefix}{name}.", source)


def _suggest(name: str, known: list[str]) -> str:
    meant = {key: key for key in known}
    meant |= {other: key for other, key in SYNONYMS.items() if key in known}
    near = difflib.get_close_matches(shorten(name), meant, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {meant[near[0]]!r}?"
    valid = f"valid keys: {', '.join(known) or 'none'}"
    for section, schema in get_type_hints(ViTnnUNetConfig).items():
        keys = [f.name for f in fields(schema)]
        if SYNONYMS.get(name, name) in keys and known != keys:
            return f"unknown key; {SYNONYMS.get(name, name)!r} belongs under {section} ({valid})"
    return f"unknown key; {valid}"


def _first_problem(error: ValidationError, prefix: str, source: str | Path) -> str:
    problems = error.errors(include_url=False)
    # A value of several possible types has a problem with each; the best fit goes deepest.
    same = [p for p in problems if p["loc"][:2] == problems[0]["loc"][:2]]
    problem = max(same, key=lambda p: len(p["loc"]))
    location = [shorten(part) for part in problem["loc"] if not _TYPES.fullmatch(str(part))]
    key = ".".join(filter(None, [prefix, *location]))
    return f"{source}: {key}: {problem['msg']}, got {shorten(repr(problem['input']))}"
