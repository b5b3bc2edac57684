"""Raw data sets and images for prediction whose neighbouring slices are channels.

Everything else is stock nnU-Net: it plans, trains and predicts a data set of more channels.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_vit_trainer.checkpoints.files import folder_written_whole
from nnunet_vit_trainer.plans.datasets import free_name, read_dataset_json
from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.plans.neighbours import KEY, Neighbours, axis_of, neighbours_of
from vit_backbone import UserError, quoted, reason_of, shorten

from .fingerprint import repeated_fingerprint, write_fingerprint
from .volumes import READERS, write_shifted

MOST = 5
"""Neighbours on either side: eleven channels of each."""

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
OnCases = Callable[[int], Callable[[], None]]


def convert_dataset(
    source: Path,
    plans: dict[str, Any],
    preprocessed: Path,
    number: int,
    count: int,
    on_cases: OnCases,
) -> tuple[Path, Neighbours]:
    """Write a data set again whose channels are each slice and its neighbours.

    Labels are copied; names, and so a ``splits_final.json``, stay what they are. Channels keep
    their names, by which nnU-Net chooses how it normalises: channel 0 of ``count`` 1 becomes 0
    (the slice before), 1 and 2 (the slice after), channel 1 becomes 3, 4 and 5. Where one is CT,
    all of its channels get the one window that the first data set has (`fingerprint`).

    Args:
        source: the raw data set's folder, in ``nnUNet_raw``.
        plans: nnU-Net's own of it, which say where it cuts slices.
        preprocessed: the folder ``nnUNet_preprocessed``.
        number: the new data set's ID.
        count: neighbours on either side, 1 to `MOST`.
        on_cases: told how many cases there are; what it returns is called after each.

    Returns:
        The new folder, and what was made channels.

    Raises:
        UserError: a wrong count or ID, data that nnU-Net turns as it reads them, no volumes, a case
            without all channels, CT without a fingerprint, or a converted data set.
    """
    if not 1 <= count <= MOST:
        raise UserError(f"-k {count}: 1 to {MOST} neighbours on either side are expected")
    dataset = read_dataset_json(source)
    if KEY in dataset:
        raise UserError(f"{source} has neighbours as channels already")
    if "file_ending" not in dataset:
        raise UserError(f"{source / 'dataset.json'} names no file_ending; nnU-Net's does")
    if (reader := plans["image_reader_writer"]) not in READERS:
        raise UserError(
            f"{source.name} is read by nnU-Net's {reader}: volumes are expected that it reads as "
            f"they lie in the file ({', '.join(READERS)})"
        )
    of = Neighbours(count, axis_of(plans))
    name = source.name.partition("_")[2]
    target = source.with_name(free_name(number, f"{name}_neighbours{count}", source.parent))
    fingerprint = repeated_fingerprint(preprocessed / source.name, dataset, len(of.offsets))
    training = _training_cases(source, dataset)
    tests = _test_cases(source, dataset)
    channels = len(dataset["channel_names"])
    _check_channels(source, {of: files for of, (files, _) in training.items()}, channels)
    _check_channels(source, tests, channels)
    on_case = on_cases(len(training) + len(tests))
    try:
        with folder_written_whole(target) as folder:
            for part in ("imagesTr", "labelsTr", *(["imagesTs"] if tests else [])):
                (folder / part).mkdir()
            ending = dataset["file_ending"]
            for case, (images, label) in training.items():
                _write_case(images, folder / "imagesTr", case, ending, of)
                shutil.copy2(label, folder / "labelsTr" / f"{case}{ending}")
                on_case()
            for case, images in tests.items():
                _write_case(images, folder / "imagesTs", case, ending, of)
                on_case()
            content = _description(dataset, source.name, of)
            (folder / "dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
            free_name(number, name, source.parent)  # another data set may have taken it meanwhile
            if fingerprint is not None:
                write_fingerprint(fingerprint, preprocessed / target.name)
    except OSError as error:
        raise UserError(f"{target} is not written: {reason_of(error)}") from error
    return target, of


def convert_inputs(images: Path, description: Path, out: Path, on_cases: OnCases) -> Neighbours:
    """Write images as a converted data set has its own, for a prediction.

    Args:
        images: a folder as ``nnUNetv2_predict -i`` takes it, of the channels that the data set had
            before it was converted.
        description: the converted data set's ``dataset.json``, or that of a model of it.
        out: the folder to write; it must not exist.
        on_cases: see `convert_dataset`.

    Raises:
        UserError: no such folder or description, other channels, or ``out`` is there.
    """
    dataset = read_json(description)
    of = neighbours_of(dataset, description)
    if of is None:
        raise UserError(f"{description} is of no data set that nnUNetv2_neighbours_vit made")
    if not images.is_dir():
        raise UserError(f"{images}: there is no such folder")
    if out.exists():
        raise UserError(f"{out}: is there already")
    cases = cases_in(images, dataset)
    channels = len(dataset["channel_names"]) // len(of.offsets)
    remark = ": the images as they were before neighbours became channels"
    _check_channels(images, cases, channels, remark)
    on_case = on_cases(len(cases))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with folder_written_whole(out) as folder:
            for case, files in cases.items():
                _write_case(files, folder, case, dataset["file_ending"], of)
                on_case()
    except OSError as error:
        raise UserError(f"{out} is not written: {reason_of(error)}") from error
    return of


def cases_in(folder: Path, dataset: dict[str, Any]) -> dict[str, list[Path]]:
    """Return the files of each case in a folder of images, in the order of their channels.

    Args:
        folder: of images.
        dataset: the content of a ``dataset.json``.

    Raises:
        UserError: there are none, or channels are missing.
    """
    ending = dataset["file_ending"]
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.glob(f"*{ending}")):
        match = _CHANNEL.fullmatch(file.name.removesuffix(ending))
        if match is None:
            raise UserError(f"{file}: a name such as case_0000{ending} is expected")
        files = cases.setdefault(match["case"], [])
        if int(match["channel"]) != len(files):
            raise UserError(
                f"{file}: channel {len(files):04d} of {quoted(match['case'])} is not there"
            )
        files.append(file)
    if not cases:
        raise UserError(f"{folder} holds no images with the ending {ending}")
    return cases


def _check_channels(
    where: Path, cases: dict[str, list[Path]], channels: int, remark: str = ""
) -> None:
    """Refuse a case of another number of channels; `cases_in` does not miss the last ones."""
    for case, files in cases.items():
        if len(files) != channels:
            said = f"{quoted(case)} has {len(files)} channels, {channels} are expected"
            raise UserError(f"{where}: {said}{remark}")


def _test_cases(source: Path, dataset: dict[str, Any]) -> dict[str, list[Path]]:
    """Return the images of each test case; the folder may be empty, or not there."""
    folder = source / "imagesTs"
    return cases_in(folder, dataset) if any(folder.glob(f"*{dataset['file_ending']}")) else {}


def _training_cases(source: Path, dataset: dict[str, Any]) -> dict[str, tuple[list[Path], Path]]:
    """Return each training case's images and its label, wherever ``dataset.json`` says they are."""
    if "dataset" not in dataset:
        labels, ending = source / "labelsTr", dataset["file_ending"]
        cases = cases_in(source / "imagesTr", dataset)
        return {case: (files, labels / f"{case}{ending}") for case, files in cases.items()}
    found = get_filenames_of_train_images_and_targets(str(source), dataset)
    return {c: ([Path(i) for i in f["images"]], Path(f["label"])) for c, f in found.items()}


def _write_case(files: list[Path], folder: Path, case: str, ending: str, of: Neighbours) -> None:
    for channel, file in enumerate(files):
        first = channel * len(of.offsets)
        write_shifted(file, of, lambda i, first=first: folder / f"{case}_{first + i:04d}{ending}")


def _description(dataset: dict[str, Any], source: str, of: Neighbours) -> dict[str, Any]:
    """Return the new ``dataset.json``; lists of files are not in it, since these are elsewhere."""
    names = dataset["channel_names"]
    ordered = [names[number] for number in sorted(names, key=int)]
    return {key: value for key, value in dataset.items() if key not in ("dataset", "modality")} | {
        "channel_names": dict(enumerate(n for name in ordered for n in [name] * len(of.offsets))),
        "description": shorten(
            f"{dataset.get('description', '')} [{source} with {of.count} neighbouring slices on "
            "either side as channels, by nnUNetv2_neighbours_vit]".strip(),
            1000,
        ),
        KEY: {"count": of.count, "axis": of.axis, "of": source},
    }
