"""Write one fold of a trained model as an ONNX file."""

import importlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.checkpoints.model_folder import named_folder, network_of, read_model
from nnunet_vit_trainer.sharing.exported import (
    check_target,
    disk_in_one_line,
    find_folds,
    read_checkpoint,
)
from vit_backbone import UserError, export_onnx, quoted, reason_of

from .metadata import METADATA_KEY, metadata_of
from .precision import PRECISIONS, Precision, in_precision

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from vit_backbone import ViTSegmentationModel

_MOST = 2 * 10**9
"""Bytes of float32 weights; a file of protobuf holds 2 GiB with all that is around them."""


@disk_in_one_line()
def export_onnx_vit(
    folder: str | Path,
    file: str | Path,
    *,
    fold: str | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
    precision: Precision = "float32",
) -> Path:
    """Write the network of one fold as an ONNX file, LoRA merged, for tiles of the plans' size.

    Input ``image`` (B, C, H, W) and output ``logits`` (B, K, H, W) are float32. The metadata hold,
    as JSON under ``nnunet_vit``, what a predictor needs else (docs/serving.md). The file is kept
    only if onnxruntime runs it, and answers as the network does before its precision is changed.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``, from any results folder.
        file: to write; it must not exist.
        fold: such as ``"0"`` or ``"all"``; ``None`` is the only one that has the checkpoint.
        checkpoint_name: which checkpoint; an adapter checkpoint is completed from the weight file
            that the plans name.
        precision: see `in_precision`.

    Returns:
        The file.

    Raises:
        UserError: the extra ``[onnx]`` is missing; no such results, or broken ones; several folds
            and no choice; a preprocessing that the metadata do not say; weights of more than 2 GB;
            a file that is there, cannot be written or does not run.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {quoted(precision)}: expected {', '.join(PRECISIONS)}")
    folder, file = named_folder(folder), Path(file)
    _check_installed()
    plans, dataset = read_model(folder)
    checkpoint = _the_fold(folder, fold, checkpoint_name) / checkpoint_name
    check_target(file)
    content = read_checkpoint(checkpoint, plans, dataset, complete=True)
    network = network_of(plans, dataset)
    network.load_state_dict(content["network_weights"])
    _check_size(network)
    metadata = metadata_of(plans, dataset, content, checkpoint, precision)
    model = in_precision(_plain_onnx(network, metadata["tile"]), precision)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(metadata)
    with written_whole(file) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
        _try(unfinished, metadata, precision)
    return file


def _check_installed() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"--onnx needs {name}: uv pip install 'nnunet-vit-trainer[onnx]'"
            ) from error


def _the_fold(folder: Path, fold: str | None, checkpoint_name: str) -> Path:
    found = find_folds(folder, None if fold is None else [fold], checkpoint_name)
    if len(found) > 1:
        names = ", ".join(one.name.removeprefix("fold_") for one in found)
        raise UserError(
            f"an ONNX file holds one network, and there are folds {names}; export each to a file "
            "of its own, with -f"
        )
    return found[0]


def _check_size(network: "nn.Module") -> None:
    needed = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    if needed > _MOST:
        raise UserError(
            f"the weights take {needed / 1e9:.1f} GB in float32, and one ONNX file holds 2 GB; "
            "vit_backbone.export_onnx writes them beside it"
        )


def _plain_onnx(network: "ViTSegmentationModel", tile: list[int]) -> "ModelProto":
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        export_onnx(network, Path(folder) / "network.onnx", tile)
        return onnx.load(Path(folder) / "network.onnx")


def _try(file: Path, metadata: dict[str, Any], precision: Precision) -> None:
    """Let onnxruntime answer once.

    Raises:
        UserError: it cannot, or a value is beyond the precision.
    """
    import onnxruntime

    tile = np.random.default_rng(0).standard_normal(
        (1, len(metadata["channels"]), *metadata["tile"]), dtype=np.float32
    )
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"image": tile})
    except Exception as error:  # onnxruntime's have no base class of their own
        raise UserError(
            f"the network does not run in {precision} and is not kept: {reason_of(error)}"
        ) from error
    if not np.isfinite(logits).all():
        raise UserError(
            f"the network's values are beyond {precision}, so the file is not kept; export it in "
            "float32"
        )
