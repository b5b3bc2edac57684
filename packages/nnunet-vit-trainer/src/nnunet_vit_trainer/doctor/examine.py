"""Build, load, take training steps and predict a tile; nothing of it is left behind."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from nnunet_vit_trainer.config.names import DEFAULT_PLANS, DEFAULT_TRAINER
from nnunet_vit_trainer.config.reading import find_config
from nnunet_vit_trainer.launch.checks import first_fold
from nnunet_vit_trainer.launch.prepare import prepare
from nnunet_vit_trainer.launch.request import Request
from nnunet_vit_trainer.plans.datasets import environment
from nnunet_vit_trainer.plans.derive import PLANS_KEY

from .examination import Examination


def examine(
    dataset_name_or_id: str | int,
    configuration: str,
    config_path: str | Path,
    *,
    trainer_class_name: str = DEFAULT_TRAINER,
    plans_identifier: str = DEFAULT_PLANS,
    device: str = "cuda",
) -> Examination:
    """Try a run: its trainer takes steps on a batch of the data set and predicts one tile.

    All cases are drawn from (``fold all``), so no split is made. Plans, logs and results go to a
    temporary folder.

    Args:
        dataset_name_or_id: as in `run_training_vit`, like the others.
        configuration: see there.
        config_path: see there.
        trainer_class_name: see there.
        plans_identifier: see there.
        device: see there.

    Raises:
        UserError: what `run_training_vit` would refuse before it trains.
    """
    request = Request(
        dataset=dataset_name_or_id,
        configuration=configuration,
        fold="all",
        config=config_path,
        trainer=trainer_class_name,
        plans=plans_identifier,
        device=device,
    )
    prepared = prepare(request)
    name = find_config(config_path).stem
    found = Examination(f"{prepared.dataset} {configuration}, config {name}, on {device}")
    dataset_folder = Path(environment("nnUNet_preprocessed"), prepared.dataset)
    found.fold = first_fold(dataset_folder, prepared.plans[PLANS_KEY]["data"]["cases"])
    with _nothing_left_behind() as workers:
        from .probe import probe

        probe(found, request, prepared, workers)
    found.problems.sort(key=lambda problem: not problem.fatal)
    return found


@contextlib.contextmanager
def _nothing_left_behind() -> Iterator[int]:
    """Send what nnU-Net writes and prints nowhere; yields the workers that would load data."""
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    workers = get_allowed_n_proc_DA()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(
            os.environ,
            # Data are loaded in this process, and no W&B run is begun.
            {"nnUNet_results": folder, "nnUNet_n_proc_DA": "0", "nnUNet_wandb_enabled": "0"},
        ),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield workers
