"""Find a backbone's weight file, and see that its tensors can fill one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg

from vit_backbone.errors import WeightsError, reason_of, shorten
from vit_backbone.vits.families import MODEL_CONFIGS
from vit_backbone.vits.statistics import refuse_unknown

from .checkpoint import Checkpoint, parts_of
from .once import keep, kept, sha256_of_files, state_of
from .reading import read_file
from .recognition import recognise

_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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
        A local file or folder, or ``None`` for random initialisation.

    Raises:
        UserError: weights are to be fetched of a model that timm does not know.
        WeightsError: no such file or folder, no hub within reach, or a family that no hub holds.
    """
    if checkpoint_path:
        # Neither raises, whatever a user's path is: Path's do for ~nobody, and for long names.
        file = Path(os.path.expanduser(checkpoint_path))
        if not os.path.exists(file):
            raise WeightsError(f"checkpoint_path {shorten(file, 200)!r} is not there")
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
    refuse_unknown(timm_name)
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


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a weight file, or a Hugging Face folder, and recognise its layout.

    Args:
        path: .safetensors, a torch file of any suffix, or a folder with either.

    Raises:
        WeightsError: unreadable, holding code, without tensors, or with tensors of a backbone
            that are not finite floating-point numbers.
    """
    path = Path(os.path.expanduser(path))  # as `find_weights` does
    files = weight_files(path)
    state = state_of(files)
    if (checkpoint := kept(state)) is None:
        checkpoint = _read(path, files)
        keep(state, checkpoint)
    return checkpoint


def _read(path: Path, files: list[Path]) -> Checkpoint:
    content: dict[str, Any] = {}
    size = 0
    for file in files:
        part = read_file(file)
        size += file.stat().st_size
        if not isinstance(part, Mapping):
            raise WeightsError(f"{file} holds {type(part).__name__}, not a dict of tensors")
        if twice := content.keys() & part.keys():
            name = shorten(str(min(twice, key=str)), 60)
            raise WeightsError(f"{file} holds {name}, which is in another shard too")
        content |= part
    try:
        checkpoint = recognise(content)
    except ValueError as error:
        raise WeightsError(f"{path} holds {error}") from error
    except (RuntimeError, TypeError, IndexError) as error:  # tensors that no backbone has
        raise WeightsError(f"{path} is no backbone's weights: {reason_of(error)}") from error
    periods = {} if checkpoint.periods is None else {"of RoPE's periods": checkpoint.periods}
    for name, tensor in (checkpoint.tensors | periods).items():
        if fault := next(filter(None, (_find_fault(t, size) for t in parts_of(tensor))), None):
            raise WeightsError(
                f"{path}: {shorten(name, 60)} is {fault}; a backbone is filled from finite "
                "floating-point numbers only"
            )
    return checkpoint


def _find_fault(tensor: torch.Tensor, size_of_files: int) -> str | None:
    if tensor.dtype not in _DTYPES:
        return f"of type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.layout != torch.strided:
        return f"stored as {str(tensor.layout).removeprefix('torch.')}"
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored or stored > size_of_files:
        return f"of {tensor.numel():.1e} values, more than are stored for it"
    return None if tensor.float().isfinite().all() else "not finite"


def weight_files(path: Path) -> list[Path]:
    """List the files that hold the tensors: the file itself, or a folder's (sharded) model.

    Raises:
        WeightsError: a folder without a model in it, an index alone or of what is not beside it,
            or a pipe or a device.
    """
    if not os.path.isdir(path):
        if os.path.exists(path) and not os.path.isfile(path):
            raise WeightsError(f"{path} is neither a file nor a folder")  # a pipe would be endless
        if path.name.endswith(".index.json"):
            raise WeightsError(f"{path} is an index of shards; give its folder {path.parent}")
        return [path]
    found = next((path / name for name in _FOLDER_FILES if (path / name).is_file()), None)
    if found is None:
        raise WeightsError(f"folder {path} holds none of {', '.join(_FOLDER_FILES)}")
    if found.suffix != ".json":
        return [found]
    try:
        shards = set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(f"{found} is not an index of shards: {reason_of(error)}") from error
    if not shards:
        raise WeightsError(f"{found} is not an index of shards: it names none")
    for shard in shards:
        name = shorten(str(shard), 60)
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise WeightsError(f"{found} names the shard {name!r}; a file's plain name is needed")
        if not (path / shard).is_file():
            raise WeightsError(f"{found} names the shard {name!r}, which is not in the folder")
    return [path / shard for shard in sorted(shards)]


def sha256_of(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file, or of a folder's model files one after the other."""
    return sha256_of_files(weight_files(Path(os.path.expanduser(path))))
