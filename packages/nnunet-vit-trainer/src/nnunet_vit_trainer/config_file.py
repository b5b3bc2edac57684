"""The config file: where it is found, how it is read, and one line for what is wrong with it.

No torch here: a typo is answered before anything heavy is imported.
"""

import difflib
import json
import re
import sys
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from vit_backbone import (
    LAYER_PRESETS,
    MODEL_CONFIGS,
    UserError,
    find_head,
    head_options,
    resolve_backbone,
)

from .config import DecoderConfig, ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
from .input_norm import NAMES as INPUT_NORMS
from .synonyms import SYNONYMS


class ConfigError(UserError):
    """A config that cannot be meant; the message names the file, the key and the remedy."""


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package, sorted."""
    folder = resources.files(__package__) / "configs"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def find_config(file_or_name: str | Path) -> Path:
    """Locate a config file.

    Args:
        file_or_name: a path, or the name of a shipped config.

    Raises:
        ConfigError: neither is there, or the file's stem cannot name an nnU-Net plans file.
    """
    file = Path(file_or_name)
    if not file.is_file() and str(file_or_name) in shipped_configs():
        file = Path(str(resources.files(__package__) / "configs" / f"{file_or_name}.yaml"))
    if not file.is_file():
        raise ConfigError(
            f"{file_or_name}: no such file, and no shipped config of that name "
            f"({', '.join(shipped_configs())})"
        )
    if file.stem.endswith("_ds"):
        raise ConfigError(f"{file}: the ending '_ds' is kept for runs with deep supervision")
    if not re.fullmatch(r"[A-Za-z0-9.-]+(_[A-Za-z0-9.-]+)*", file.stem):
        raise ConfigError(
            f"{file}: the file's name becomes part of the plans' and the results' names, so use "
            "letters, digits, '.', '-' and single '_' between them"
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
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: not readable as YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a mapping with model, lora and train is expected")
    _refuse_unknown_keys(content, ViTnnUNetConfig, "", file)
    try:
        # Strict validation takes nested mappings in JSON only, from Python it wants instances.
        config = TypeAdapter(ViTnnUNetConfig).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise ConfigError(_first_problem(error, "", file)) from error
    check_model(config.model, file)
    check_train(config.train, file)
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
    for name, value in model.decoder.options().items():
        key = f"model.decoder.{name}"
        if name not in known:
            raise ConfigError(f"{source}: {key}: {_suggest(name, list(known))}")
        annotation = known[name].annotation
        if annotation is not known[name].empty:
            try:
                TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(value)
            except ValidationError as error:
                raise ConfigError(_first_problem(error, key, source)) from error
    check = getattr(sys.modules[factory.__module__], "check_options", None)
    if check is not None:
        try:
            check(**model.decoder.options())
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
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(names)}"
        raise ConfigError(f"{source}: {key}: unknown {value!r}; {hint}")


def _refuse_unknown_keys(content: Any, schema: type, prefix: str, file: Path) -> None:
    if not isinstance(content, dict) or schema is DecoderConfig:
        return  # a wrong type is pydantic's to name, and the head's options the head's
    hints = get_type_hints(schema)
    known = [f.name for f in fields(schema)]
    for name, value in content.items():
        if name not in known:
            raise ConfigError(f"{file}: {prefix}{name}: {_suggest(str(name), known)}")
        if is_dataclass(hints[name]):
            _refuse_unknown_keys(value, hints[name], f"{prefix}{name}.", file)


def _suggest(name: str, known: list[str]) -> str:
    meant = {key: key for key in known}
    meant |= {other: key for other, key in SYNONYMS.items() if key in known}
    near = difflib.get_close_matches(name, meant, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {meant[near[0]]!r}?"
    valid = f"valid keys: {', '.join(known) or 'none'}"
    for section, schema in get_type_hints(ViTnnUNetConfig).items():
        keys = [f.name for f in fields(schema)]
        if SYNONYMS.get(name, name) in keys and known != keys:
            return f"unknown key; {SYNONYMS.get(name, name)!r} belongs under {section} ({valid})"
    return f"unknown key; {valid}"


def _first_problem(error: ValidationError, prefix: str, file: str | Path) -> str:
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"] if not str(part).startswith("function-")]
    key = ".".join(filter(None, [prefix, *location]))
    return f"{file}: {key}: {problem['msg']}, got {problem['input']!r}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# PyYAML follows YAML 1.1, where 1e-3 is a string.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
