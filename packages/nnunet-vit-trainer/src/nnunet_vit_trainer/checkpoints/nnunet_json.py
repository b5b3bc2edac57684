"""nnU-Net's own JSON files, written whole: it writes in place, where a kill leaves a half one."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import written_whole

SAVE = "save_json"


@contextlib.contextmanager
def json_written_whole() -> Iterator[None]:
    """Let nnU-Net's trainer meanwhile write ``plans.json`` and its like whole or not at all.

    These are plans.json and dataset.json, which each start writes anew and the next one reads;
    splits_final.json, which folds that start together read; and debug.json.
    """
    nnunet = importlib.import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    save = getattr(nnunet, SAVE)

    def save_whole(content: Any, file: str, **options: Any) -> None:
        with written_whole(Path(file)) as unfinished:
            save(content, str(unfinished), **options)

    setattr(nnunet, SAVE, save_whole)
    try:
        yield
    finally:
        setattr(nnunet, SAVE, save)
