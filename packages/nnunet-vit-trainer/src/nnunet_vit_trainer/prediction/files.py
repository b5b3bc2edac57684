"""Prediction of files: read, predict and write at the same time, in threads of one process."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits

from nnunet_vit_trainer.checkpoints.files import working_folder, written_whole
from vit_backbone import UserError, reason_of

from .batches import predicted
from .cases import BESIDE_MASKS, Case
from .continuing import OPTIONS, begin_anew, options_of, text_of
from .predictor import Predictor
from .tiles import Canvas

_AXES_OF_A_MASK = 3
"""At most, of what nnU-Net's writer takes."""


@dataclass
class Course:
    """How a prediction went.

    Attributes:
        seconds: per stage; those of reading and writing are the sum over their threads.
        failed: why a case has no mask, by its name.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextlib.contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Add the time that a block takes to a stage's."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                spent = time.perf_counter() - begun
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


def predict_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Path,
    *,
    probabilities: bool = False,
    readers: int = 2,
    writers: int = 2,
    on_progress: Callable[[float], None] = lambda cases: None,
) -> Course:
    """Predict cases into a folder, in nnU-Net's form; each file appears when it is whole.

    A case that cannot be read, predicted or written does not stop the others.

    Args:
        predictor: the model.
        cases: to predict.
        output: an existing folder.
        probabilities: whether to write ``.npz`` and ``.pkl`` too.
        readers: threads that read and preprocess, at least 1.
        writers: threads that resample and write, at least 1.
        on_progress: is told how many cases are predicted, with fractions of the one at hand.
    """
    course = Course()
    under_way: deque[tuple[Case, dict[str, Any]]] = deque()
    done = 0

    def canvases(pool: ThreadPoolExecutor) -> Iterator[Canvas]:
        for case, future in ahead(pool, partial(_read, predictor, course), cases, readers):
            try:
                with course.measured("wait for images"):
                    canvas, properties = future.result()
            except Exception as error:  # whatever a reader of images raises
                course.failed[case.name] = reason_of(error)
                continue
            under_way.append((case, properties))
            yield canvas

    written: deque[Future[None]] = deque()
    with (
        working_folder(output) as unfinished,  # others may predict into the same folder
        ThreadPoolExecutor(readers) as reading,
        ThreadPoolExecutor(writers) as writing,
    ):
        write = partial(_write, predictor, unfinished, output, probabilities, course)
        finished = predicted(
            canvases(reading),
            predictor.ensemble.networks,
            predictor.mirrors,
            predictor.batch_size,
            predictor.device,
            lambda canvas: on_progress(done + canvas.share_done % 1),
        )
        for canvas in finished:
            case, properties = under_way.popleft()
            done += 1
            with course.measured("wait for writing"):  # not more in memory than writers can take
                while len(written) > 2 * writers:
                    written.popleft().result()
            written.append(writing.submit(write, case, canvas, properties))
    return course


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Case], Any], cases: Sequence[Case], count: int
) -> Iterator[tuple[Case, Future[Any]]]:
    """Submit work for cases, ``count`` of them before they are asked for, and give it in order."""
    coming: deque[tuple[Case, Future[Any]]] = deque()
    for case in cases:
        coming.append((case, pool.submit(work, case)))
        if len(coming) > count:
            yield coming.popleft()
    yield from coming


def _read(predictor: Predictor, course: Course, case: Case) -> tuple[Canvas, dict[str, Any]]:
    with course.measured("read and preprocess"):
        reader = predictor.ensemble.plans.image_reader_writer_class()
        image, properties = reader.read_images([str(file) for file in case.files])
        axes = len(properties.get("sitk_stuff", {}).get("spacing", ()))
        if axes > _AXES_OF_A_MASK:  # nnU-Net's writer fails of it, after all the work
            raise UserError(
                f"a file of {axes} axes: its mask could not be written; write one file a channel"
            )
        return predictor.preprocess(image, properties)


def _write(
    predictor: Predictor,
    working: Path,
    output: Path,
    probabilities: bool,
    course: Course,
    case: Case,
    canvas: Canvas,
    properties: dict[str, Any],
) -> None:
    of = predictor.ensemble
    unfinished = working / case.name
    mask = f"{case.name}{of.dataset['file_ending']}"
    try:
        with course.measured("resample and write"):
            logits = canvas.result().numpy()
            unfinished.mkdir()
            export_prediction_from_logits(
                logits,
                properties,
                of.configuration,
                of.plans,
                of.dataset,
                str(unfinished / case.name),
                probabilities,
                num_threads_torch=torch.get_num_threads(),
            )
            # Some writers of images lay a file beside the mask. The mask last: it says done.
            for file in sorted(unfinished.iterdir(), key=lambda file: file.name == mask):
                file.replace(output / file.name)
    except Exception as error:  # a full disk, or what nnU-Net raises
        course.failed[case.name] = reason_of(error)


def prepare_output(
    predictor: Predictor,
    output: Path,
    arguments: dict[str, Any],
    weights: Sequence[Path],
    cases: Sequence[Case],
    *,
    continued: bool,
) -> None:
    """Make the folder of masks, with what nnU-Net lays beside them to ensemble and postprocess.

    Args:
        predictor: the model.
        output: a folder, which need not exist.
        arguments: of the command, for ``predict_from_raw_data_args.json``.
        weights: the checkpoints of the folds.
        cases: to predict.
        continued: whether a prediction goes on that `check_continued` let pass; if not, what is
            there of the cases goes first (`begin_anew`).

    Raises:
        UserError: the folder cannot be written to.
    """
    of = predictor.ensemble
    try:
        output.mkdir(parents=True, exist_ok=True)
        options = (
            options_of(predictor, weights)
            if continued
            else begin_anew(predictor, output, cases, weights)
        )
        contents = (arguments | {OPTIONS: options}, of.dataset, of.plans.plans)
        for name, content in zip(BESIDE_MASKS, contents, strict=True):
            with written_whole(output / name) as unfinished:
                unfinished.write_text(text_of(content))
    except OSError as error:
        raise UserError(f"{output} cannot be written to: {reason_of(error)}") from error
