"""The config file: where it is found, how it is read, and one line for what is wrong with it.

No torch here: a typo is answered before anything heavy is imported.
"""

import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

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

from .catalogue import nearest_shipped, shipped_configs, shipped_file
from .names import ConfigError, check_name
from .problems import (
    Problem,
    in_one_line,
    is_told,
    suggest,
    unknown_keys,
    wrong_choice,
    wrong_types,
)
from .schema import DecoderConfig, ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
from .yaml_file import read_yaml

_HEAD_OPTIONS = ConfigDict(strict=True, allow_inf_nan=False)
_SMALLEST_STD = 1e-8


def find_config(file_or_name: str | Path) -> Path:
    """Locate a config file.

    Args:
        file_or_name: a path, or the name of a shipped config.

    Raises:
        ConfigError: neither is there, or the file's stem cannot name an nnU-Net plans file.
    """
    file = Path(file_or_name)
    if not os.path.isfile(file) and str(file_or_name) in shipped_configs():
        file = shipped_file(str(file_or_name))
    if not os.path.isfile(file):
        raise ConfigError(
            f"{shorten(file_or_name, 200)}: no such file, and no shipped config of that name; "
            f"{nearest_shipped(str(file_or_name))}"
        )
    check_name(file, file_or_name)
    return file


def load_config(file_or_name: str | Path) -> ViTnnUNetConfig:
    """Read and check a config, the options of its head included.

    Args:
        file_or_name: a YAML file, or the name of a shipped config.

    Raises:
        ConfigError: unreadable, an unknown key, a wrong type, an impossible value or backbone
            size, or a head that is not installed. Several mistakes are said together.
    """
    file = find_config(file_or_name)
    source = shorten(file, 200)
    try:
        content, problems = read_yaml(file)
    except UserError as error:
        raise ConfigError(f"{source}: {error}") from error
    problems += unknown_keys(content, ViTnnUNetConfig)
    sections = {}
    for name, schema in get_type_hints(ViTnnUNetConfig).items():
        sections[name], wrong = _read_section(schema, content.get(name, {}), name)
        problems += [problem for problem in wrong if not is_told(problem.key, problems)]
    problems += _model_problems(sections["model"], problems)
    problems += _train_problems(sections["train"], problems)
    if problems:
        raise ConfigError(in_one_line(problems, source))
    return ViTnnUNetConfig(**sections)


def _read_section(schema: type[Any], content: Any, name: str) -> tuple[Any, list[Problem]]:
    """Read what can be read of a section; a key that is wrong has its default then."""
    if isinstance(content, dict):
        known = {f.name for f in fields(schema)}
        content = {key: value for key, value in content.items() if key in known}
    try:
        return _validated(schema, content), []
    except ValidationError as error:
        problems = wrong_types(error, name)
        wrong = {found["loc"][0] for found in error.errors() if found["loc"]}
    right = {key: content[key] for key in content if key not in wrong} if wrong else {}
    return _validated(schema, right), problems


def _validated(schema: type, content: Any) -> Any:
    # Strict validation takes nested mappings in JSON only, from Python it wants instances.
    return TypeAdapter(schema).validate_json(json.dumps(content, default=str))


def check_model(model: ViTModelConfig, source: str | Path) -> None:
    """Check what the dataclasses cannot know: the backbone's size and the head's own options.

    Args:
        model: the section to check.
        source: the file it came from, for messages.

    Raises:
        ConfigError: see `load_config`.
    """
    if problems := _model_problems(model, []):
        raise ConfigError(in_one_line(problems, shorten(source, 200)))


def _model_problems(model: ViTModelConfig, told: list[Problem]) -> list[Problem]:
    """List what is wrong, but for keys that have a problem already."""
    problems = []
    if not is_told("model.backbone", told) and not is_told("model.backbone_size", told):
        problems += _size_problems(model)
    if not is_told("model.layer_indices", told):
        problems += wrong_choice(model.layer_indices, tuple(LAYER_PRESETS), "model.layer_indices")
    if not is_told("model.input_norm", told):
        problems += _statistics_problems(model.input_norm)
    if not is_told("model.model_path", told):
        problems += _head_problems(model, told)
    return problems


def _size_problems(model: ViTModelConfig) -> list[Problem]:
    key = "model.backbone_size"
    if model.backbone_size is not None and model.backbone not in MODEL_CONFIGS:
        said = (
            f"{shorten(model.backbone)!r} is no family ({', '.join(MODEL_CONFIGS)}) and has its "
            "size in its name; leave the key away"
        )
        return [Problem(key, said)]
    try:
        resolve_backbone(model.backbone, model.backbone_size)
    except UserError as error:
        return [Problem(key, str(error))]
    return []


def _statistics_problems(norm: str | dict[str, list[float]]) -> list[Problem]:
    key = "model.input_norm"
    if isinstance(norm, str):
        return wrong_choice(norm, INPUT_NORMS, key)
    if set(norm) != {"mean", "std"} or not all(norm.values()):
        keys = ", ".join(norm) or "none"
        return [Problem(key, f"mean and std, each with values, are expected, got {shorten(keys)}")]
    if min(norm["std"]) < _SMALLEST_STD:
        said = f"at least {_SMALLEST_STD} is expected, got {min(norm['std'])}"
        return [Problem(f"{key}.std", said)]
    return []


def _head_problems(model: ViTModelConfig, told: list[Problem]) -> list[Problem]:
    try:
        factory = find_head(model.model_path)
    except UserError as error:
        return [Problem("model.model_path", str(error))]
    known = head_options(factory)
    # By the class: an option that is named "options" hides the method until it is refused here.
    options = DecoderConfig.options(model.decoder)
    problems = []
    for name, value in options.items():
        key = f"model.decoder.{shorten(name)}"
        if is_told(key, told):
            continue
        if name not in known:
            problems.append(Problem(key, suggest(name, list(known))))
        elif known[name].annotation is not known[name].empty:
            try:
                TypeAdapter(known[name].annotation, config=_HEAD_OPTIONS).validate_python(value)
            except ValidationError as error:
                problems += wrong_types(error, key)[:1]
            except PydanticSchemaGenerationError:  # a class of the head's own
                continue
    check = getattr(sys.modules[factory.__module__], "check_options", None)
    if check is not None and not problems and not is_told("model.decoder", told):
        try:
            check(**{n: p.default for n, p in known.items() if n != "auxiliary_outputs"} | options)
        except UserError as error:
            problems.append(Problem("", f"model.decoder.{error}"))
    return problems


def _train_problems(train: ViTTrainConfig, told: list[Problem]) -> list[Problem]:
    """List two keys that say the same, or epochs that there are not."""
    problems = []
    if train.backbone_lr is not None and train.backbone_lr_scale is not None:
        said = "it excludes train.backbone_lr_scale; keep one of them"
        problems.append(Problem("train.backbone_lr", said))
    begins = train.head_first_epochs + (train.warmup_epochs or 0)
    counted = ("num_epochs", "head_first_epochs", "warmup_epochs")
    if begins >= train.num_epochs and not any(is_told(f"train.{key}", told) for key in counted):
        said = (
            f"{train.num_epochs} epochs end before the {begins} of head_first_epochs and "
            "warmup_epochs do"
        )
        problems.append(Problem("train.num_epochs", said))
    return problems
