"""Find a backbone's weight file, read it safely, and fill the backbone completely or not at all."""

import argparse
import contextlib
import hashlib
import io
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv, get_pretrained_cfg
from torch import nn

from .errors import WeightsError
from .families import MODEL_CONFIGS

# What files of the zoo carry beside a backbone: pretraining and classification parts.
DROPPABLE = ("mask_token", "head.", "head_dist.", "fc_norm.", "decoder_", "local_cls_norm.")
_CONTAINERS = ("model_ema", "model", "teacher", "state_dict")
_PATCH_WEIGHT = "patch_embed.proj.weight"


@dataclass(frozen=True)
class LoadReport:
    """What was loaded: file, number of tensors, changes on the way, and the file's sha256."""

    file: Path
    tensors: int
    notes: tuple[str, ...]
    sha256: str

    def line(self) -> str:
        """Say it in one line."""
        notes = "".join(f", {note}" for note in self.notes)
        return f"loaded {self.tensors} tensors from {self.file}{notes}, sha256 {self.sha256}"


def find_weights(
    model_name: str,
    timm_name: str,
    checkpoint_path: str | Path | None = None,
    *,
    pretrained: bool | None = None,
) -> Path | None:
    """Locate the weight file: the user's own, the hub's cached copy, or the hub itself.

    Args:
        model_name: the family or timm name that the user gave.
        timm_name: the resolved timm name.
        checkpoint_path: the user's file; it wins over ``pretrained``. Empty means none.
        pretrained: ``None`` or ``True`` is the family's released weights, ``False`` none.

    Returns:
        A local file, or ``None`` for random initialisation.

    Raises:
        WeightsError: no such file, no hub within reach, or a family that no hub holds.
    """
    if checkpoint_path:
        file = Path(checkpoint_path).expanduser()
        if not file.is_file():
            raise WeightsError(f"checkpoint_path {str(file)!r} is not a file")
        return file
    if pretrained is False:
        return None
    family = MODEL_CONFIGS.get(model_name)
    remedy = "give checkpoint_path=FILE (a local .safetensors or .pth), or pretrained=False"
    if family is not None and not family["on_hub"]:
        raise WeightsError(
            f"the weights of {model_name!r} are on no model hub; get them from "
            f"{family['source']} and {remedy} for random initialisation"
        )
    config = get_pretrained_cfg(timm_name)
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"timm has no released weights for {timm_name!r}; {remedy}")
    source = f" (from {family['source']})" if family else ""
    missing = f"the pretrained weights {config.hf_hub_id}{source}"
    return _fetch_from_hub(config.hf_hub_id, missing, remedy)


def _fetch_from_hub(repo_id: str, missing: str, remedy: str) -> Path:
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    filename = "model.safetensors"
    try:
        return Path(hf_hub_download(repo_id, filename, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        # One quick look first: offline, the download itself retries for most of a minute.
        get_session().head(hf_hub_url(repo_id, filename), timeout=5)
        return Path(hf_hub_download(repo_id, filename))
    except Exception as error:  # requests, httpx or httpx2: the hub's client changed it twice
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{missing} are not on this machine and could not be downloaded ({reason}); {remedy}"
        ) from error


def load_weights(backbone: nn.Module, file: str | Path) -> LoadReport:
    """Fill every tensor of a backbone from a file; a backbone that carries LoRA is filled too.

    Timm-layout files and those that timm's own filter converts (DINOv2, DINOv3) are understood,
    in a flat file or under ``model``, ``teacher`` or ``state_dict``. Nothing is changed unless
    everything fits.

    Args:
        backbone: a timm ViT; adapters are left alone, the layers under them are filled.
        file: .safetensors, or a torch file, which is read without running any code in it.

    Raises:
        WeightsError: the file is unreadable, fills only a part, or holds what the backbone lacks.
    """
    file = Path(file)
    source = read_checkpoint(file)
    target = _base_tensors(backbone)
    _refuse_unheld_biases(source, target, file)
    found = {
        key: value
        for key, value in _convert(source, backbone).items()
        if not _droppable(key, target)
    }
    notes = _adapt_channels(found, target)
    _refuse_partial(found, target, file)
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(found[name])
    return LoadReport(file, len(target), tuple(notes), sha256_of(file))


def read_checkpoint(file: Path) -> dict[str, torch.Tensor]:
    """Read a file's tensors, unwrapped from the container they lie in.

    Raises:
        WeightsError: unreadable, holding code, or without tensors.
    """
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            # RETFound's files carry their argparse.Namespace, which is data.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        reason = (
            str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        )
        raise WeightsError(f"{file} cannot be read as a weight file: {reason}") from error
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} holds {type(content).__name__}, not a dict of tensors")
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{file} holds no tensors (keys: {sorted(map(str, content))[:5]})")
    return tensors


def patch_embedding_is_adapted(backbone: nn.Module) -> bool:
    """Say whether the patch embedding takes another number of channels than the pretrained one."""
    return backbone.patch_embed.proj.in_channels != backbone.pretrained_cfg["input_size"][0]


def sha256_of(file: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _base_tensors(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Name the backbone's own tensors as they are called without adapters."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" not in name
    }


def _convert(source: dict[str, torch.Tensor], backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Apply the filter that timm keeps beside the backbone's class."""
    convert = sys.modules[type(backbone).__module__].checkpoint_filter_fn
    with contextlib.redirect_stdout(io.StringIO()):  # timm prints an exception per skipped bias
        return convert(dict(source), backbone)


def _droppable(key: str, target: Mapping[str, torch.Tensor]) -> bool:
    return key not in target and key.startswith(DROPPABLE)


def _adapt_channels(
    found: dict[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> list[str]:
    if _PATCH_WEIGHT not in found or found[_PATCH_WEIGHT].ndim != 4:
        return []
    have, want = found[_PATCH_WEIGHT].shape[1], target[_PATCH_WEIGHT].shape[1]
    if have == want:
        return []
    if have != 3:
        raise WeightsError(
            f"the file's patch embedding takes {have} channels, the model {want}; "
            "only three-channel weights can be adapted"
        )
    found[_PATCH_WEIGHT] = adapt_input_conv(want, found[_PATCH_WEIGHT])
    return [f"patch embedding adapted from {have} to {want} channels"]


def _refuse_unheld_biases(
    source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], file: Path
) -> None:
    """Official DINOv3 files carry qkv biases; where they are not zero the qkvb model is meant."""
    if "storage_tokens" not in source or "blocks.0.attn.q_bias" in target:
        return
    if any(key.endswith("qkv.bias") and value.count_nonzero() for key, value in source.items()):
        raise WeightsError(
            f"{file} has qkv biases that are not zero, which this model cannot hold; "
            "name the timm model with _qkvb in its name"
        )


def _refuse_partial(
    found: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], file: Path
) -> None:
    missing = [key for key in target if key not in found]
    unexpected = [key for key in found if key not in target]
    misshapen = [key for key in target if key in found and found[key].shape != target[key].shape]
    if not missing and not unexpected and not misshapen:
        return
    parts = [
        f"{file} does not fit the backbone: it fills "
        f"{len(target) - len(missing) - len(misshapen)} of {len(target)} tensors"
    ]
    if missing:
        parts.append(f"{len(missing)} are missing (first {missing[0]})")
    if unexpected:
        parts.append(f"{len(unexpected)} are unexpected (first {unexpected[0]})")
    if misshapen:
        key = misshapen[0]
        parts.append(
            f"{len(misshapen)} differ in shape (first {key}: file {tuple(found[key].shape)}, "
            f"backbone {tuple(target[key].shape)})"
        )
    raise WeightsError("; ".join(parts) + "; name the backbone and size that this file is for")
