"""A trained model's folder as networks that are ready to predict."""

import contextlib
import copy
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_vit_trainer.checkpoints.content import REBUILT_FROM, unwrap
from nnunet_vit_trainer.checkpoints.model_folder import FOLD_NAME
from nnunet_vit_trainer.results.folds import refuse_alike
from vit_backbone import UserError, pack_linears, quoted, reason_of
from vit_backbone.segmentation.model import ViTSegmentationModel
from vit_backbone.vits.unfilled import weights_follow


@dataclass(frozen=True)
class Ensemble:
    """The networks of a trained model's folds, and what nnU-Net knows of its data.

    Attributes:
        networks: one per fold, on their device, in evaluation mode, LoRA merged, and on a CPU their
            linear layers packed.
        plans: nnU-Net's manager of the plans.
        configuration: that of the configuration.
        labels: that of the labels.
        dataset: the content of ``dataset.json``.
        mirror_axes: that the networks were trained to be mirrored along.
    """

    networks: list[nn.Module]
    plans: PlansManager
    configuration: ConfigurationManager
    labels: LabelManager
    dataset: dict[str, Any]
    mirror_axes: tuple[int, ...] | None


def load_ensemble(
    folder: Path,
    folds: Sequence[int | str] | int | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: torch.device | str = "cpu",
) -> Ensemble:
    """Load a trained model, ours or stock nnU-Net's, with all its folds.

    As with nnUNetv2_predict, a checkpoint is unpickled: open only what you trust.

    Args:
        folder: ``<trainer>__<plans>__<configuration>``.
        folds: of those that are there, several or one; ``None`` is all of them, if each validated
            other cases.
        checkpoint: file name in each fold's folder.
        device: where the networks lie.

    Raises:
        UserError: no such folder or fold, or one that cannot be loaded, as a checkpoint that leaves
            the base weights out.
    """
    if not (folder / "plans.json").is_file():
        raise UserError(f"there is no trained model in {folder}: it has no plans.json")
    asked, folds = folds, folds_of(folder, folds, checkpoint)
    if asked is None:
        refuse_alike(folder, folds)
    try:
        # nnU-Net tells what it does, and fills the network from a checkpoint, strictly.
        with contextlib.redirect_stdout(io.StringIO()), weights_follow():
            loaded: Any = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            loaded.initialize_from_trained_model_folder(str(folder), folds, checkpoint)
        # Ours or stock; nnU-Net wraps it where nnUNet_compile=t.
        plain: Any = unwrap(loaded.network)
        networks = [_ready(plain, weights, device) for weights in loaded.list_of_parameters]
    except UserError:
        raise
    except Exception as error:  # whatever nnU-Net or a pickle runs into
        _refuse_left_out([folder / f"fold_{fold}" / checkpoint for fold in folds])
        raise UserError(
            f"the model in {folder} cannot be loaded: {type(error).__name__}: {reason_of(error)}"
        ) from error
    return Ensemble(
        networks,
        loaded.plans_manager,
        loaded.configuration_manager,
        loaded.label_manager,
        loaded.dataset_json,
        loaded.allowed_mirroring_axes,
    )


def _ready(plain: nn.Module, weights: dict[str, Any], device: torch.device | str) -> nn.Module:
    """Return a copy of a network with the weights of a fold, as it predicts."""
    network = copy.deepcopy(plain)
    network.load_state_dict(weights)
    if isinstance(network, ViTSegmentationModel):
        network.disable_lora()
    network = network.to(device).eval().requires_grad_(False)
    pack_linears(network)
    return network


def _refuse_left_out(checkpoints: Sequence[Path]) -> None:
    """Say which of some checkpoints that cannot be loaded holds what was trained alone.

    Raises:
        UserError: naming it, and what completes it.
    """
    for file in checkpoints:
        with contextlib.suppress(Exception):  # the broken one says what it is itself
            content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
            if content.get(REBUILT_FROM):
                break
    else:
        return
    raise UserError(
        f"{file.parent.name}/{file.name} leaves the base weights out (train.checkpoint: adapter); "
        f"nnUNetv2_export_vit {file.parents[1]} FILE.zip -chk {file.name} completes it "
        "(docs/training.md)"
    )


def folds_of(
    folder: Path, asked: Sequence[int | str] | int | None, checkpoint: str
) -> list[int | str]:
    """Return the folds to load, once it is sure that they are there.

    Args:
        folder: see `load_ensemble`, as for the others.
        asked: see there, each once; a number or text is one fold; ``None`` leaves ``all`` out where
            there are others, as nnU-Net does.
        checkpoint: see there.

    Raises:
        UserError: none, or not those.
    """
    found = sorted(
        fold.name.removeprefix("fold_")
        for fold in folder.glob("fold_*")
        if re.fullmatch(FOLD_NAME, fold.name) and (fold / checkpoint).is_file()
    )
    there = ", ".join(found) or "none"
    without_all = [fold for fold in found if fold != "all"]
    wanted = (without_all or found) if asked is None else _listed(asked)
    missing = [str(fold) for fold in wanted if str(fold) not in found]
    if missing or not wanted:
        others = {file.name for file in folder.glob("fold_*/checkpoint_*.pth")} - {checkpoint}
        another = f" ({', '.join(sorted(others))} is there: -chk)" if others and not found else ""
        raise UserError(
            f"{folder} has no {checkpoint} of fold {', '.join(missing) or 'any'}; "
            f"there are: {there}{another}"
        )
    return list({str(fold): fold for fold in wanted}.values())  # none counts twice


def _listed(folds: Any) -> list[int | str]:
    """List folds that somebody named: one, or several, as arrays and tensors too."""
    folds = folds.tolist() if hasattr(folds, "tolist") else folds
    if isinstance(folds, int | Integral | str):
        return [folds]
    try:
        return list(folds)
    except TypeError:
        raise UserError(f"folds {quoted(folds)}: their numbers, or 'all', are expected") from None
