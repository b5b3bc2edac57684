"""The config file: its schema, where it is found, and one line for what is wrong with it.

No torch here: a typo is answered before anything heavy is imported. Below this edge there are no
config objects, only flat keyword arguments.
"""

import difflib
import json
import re
import sys
from dataclasses import field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from vit_backbone import (
    LAYER_PRESETS,
    MODEL_CONFIGS,
    UserError,
    find_head,
    head_options,
    resolve_backbone,
)

from .input_norm import NAMES as INPUT_NORMS

Positive = Annotated[int, Field(ge=1)]
_STRICT = ConfigDict(extra="forbid", strict=True)

# What people call these keys elsewhere.
SYNONYMS = {
    "rank": "r",
    "lora_rank": "r",
    "lora_r": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "lora_target_modules": "target_modules",
    "use_lora": "enabled",
    "enable": "enabled",
    "lr": "initial_lr",
    "learning_rate": "initial_lr",
    "wd": "weight_decay",
    "clip": "gradient_clip",
    "grad_clip": "gradient_clip",
    "max_grad_norm": "gradient_clip",
    "epochs": "num_epochs",
    "max_epochs": "num_epochs",
    "iterations": "num_iterations_per_epoch",
    "steps_per_epoch": "num_iterations_per_epoch",
    "head": "model_path",
    "decode_head": "decoder",
    "encoder": "backbone",
    "backbone_name": "backbone",
    "size": "backbone_size",
    "model_size": "backbone_size",
    "weights": "checkpoint_path",
    "checkpoint": "checkpoint_path",
    "channels": "decoder_channels",
    "hidden_dim": "hidden_size",
    "training": "train",
    "peft": "lora",
    "use_dora": "dora",
    "use_rslora": "rslora",
    "normalization": "input_norm",
    "taps": "layer_indices",
    "indices": "layer_indices",
    "bs": "batch_size",
    "crop_size": "patch_size",
}


class ConfigError(UserError):
    """A config that cannot be meant; the message names the file, the key and the remedy."""


@dataclass(config=ConfigDict(extra="allow"))
class DecoderConfig:
    """The options of the head that ``model_path`` names, as attributes.

    Their names and types are the head's own: the explicit parameters of its factory beyond the
    standard ones. `options` returns them as a dict.
    """

    def options(self) -> dict[str, Any]:
        """Return the options that were given."""
        return dict(vars(self))


@dataclass(config=_STRICT)
class ViTModelConfig:
    """What the network is.

    Attributes:
        model_path: an installed head, or a dotted module with ``create_segmentation_model``.
        backbone: a family of `vit_backbone.MODEL_CONFIGS`, or a timm model name.
        backbone_size: a size of the family; ``None`` is its default.
        checkpoint_path: local weight file; empty means none. It wins over ``pretrained``.
        pretrained: ``None`` is the family's released weights, ``False`` random initialisation.
        patch_size: side of a patch in pixels that the patch embedding is resampled to; ``None``
            is the backbone's own.
        layer_indices: the four blocks that the head taps: a list, a preset's name, or ``None``
            for the last block of each quarter.
        input_norm: what the network does to nnU-Net's normalised channels: ``auto``, ``none``,
            ``imagenet`` or other statistics by name, or ``{mean: [...], std: [...]}``.
        tune: what of the backbone trains: ``lora``, ``frozen``, ``full``, ``last_N`` (the last N
            blocks); it wins over ``lora.enabled``, which decides where it is ``None``.
        decoder: the head's options.
    """

    model_path: str = "unetr"
    backbone: str = "dinov3"
    backbone_size: str | None = None
    checkpoint_path: str = ""
    pretrained: bool | None = None
    patch_size: Positive | None = None
    layer_indices: Annotated[list[int], Field(min_length=4, max_length=4)] | str | None = None
    input_norm: str | dict[str, list[float]] = "auto"
    tune: Annotated[str, Field(pattern=r"^(lora|frozen|full|last_[1-9]\d*)$")] | None = None
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(config=_STRICT)
class ViTLoRAConfig:
    """How the backbone is tuned; with ``enabled: false`` all of it trains.

    Attributes:
        enabled: whether LoRA is used.
        r: rank, at least 1.
        lora_alpha: the update is scaled by lora_alpha / r; above 0.
        target_modules: last names of linear layers inside the blocks.
        lora_dropout: 0 to below 1.
        dora: learn magnitude and direction apart (DoRA).
        rslora: scale by lora_alpha / sqrt(r) (rsLoRA).
    """

    enabled: bool = True
    r: Positive = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    target_modules: Annotated[list[str], Field(min_length=1)] = field(
        default_factory=lambda: ["qkv"]
    )
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    dora: bool = False
    rslora: bool = False


@dataclass(config=_STRICT)
class ViTTrainConfig:
    """How it is trained: AdamW with nnU-Net's polynomial decay.

    Attributes:
        initial_lr: learning rate at the start, above 0.
        weight_decay: of AdamW, at least 0.
        gradient_clip: largest norm of the gradient, above 0.
        num_epochs: at least 1.
        num_iterations_per_epoch: training steps per epoch, at least 1.
        num_val_iterations_per_epoch: online validation steps per epoch, at least 1.
        batch_size: ``None`` is the plans' own.
        patch_size: [height, width] in pixels; ``None`` is the plans' own.
    """

    initial_lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_clip: Annotated[float, Field(gt=0)] = 12.0
    num_epochs: Positive = 1000
    num_iterations_per_epoch: Positive = 250
    num_val_iterations_per_epoch: Positive = 50
    batch_size: Positive | None = None
    patch_size: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None


@dataclass(config=_STRICT)
class ViTnnUNetConfig:
    """The whole config: model, lora, train. Every section and key has a default."""

    model: ViTModelConfig = field(default_factory=ViTModelConfig)
    lora: ViTLoRAConfig = field(default_factory=ViTLoRAConfig)
    train: ViTTrainConfig = field(default_factory=ViTTrainConfig)


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
