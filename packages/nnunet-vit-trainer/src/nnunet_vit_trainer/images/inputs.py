"""Images alone, written as a data set has its own: what a model of it predicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_vit_trainer.checkpoints.files import folder_written_whole
from nnunet_vit_trainer.plans.datasets import read_dataset_json
from vit_backbone import UserError, reason_of, shorten

from .examine import Look, check_alike, each, examine_cases
from .finding.layouts import images_of
from .finding.pairing import Case, alone
from .finding.sources import READABLE, Item, list_folder
from .reading.cases import Reading, read_case
from .reading.pages import Pages, a_case_of_each_page
from .reading.pictures import Exif
from .reading.volumes import INVERTED
from .writing import Form, form_of, stored_as, write_images


def convert_images(
    folder: Path,
    number: int,
    raw: Path,
    out: Path,
    *,
    exif: Exif | None = None,
    pages: Pages = "volume",
    spacing: Sequence[float] | None = None,
    on_cases: Callable[[int], Callable[[], None]] | None = None,
) -> tuple[str, int]:
    """Write a folder of images as the data set's own are written, for ``nnUNetv2_predict -i``.

    Args:
        folder: of images; one that it holds, ``images``, counts too.
        number: the data set's ID.
        raw: the folder ``nnUNet_raw``.
        out: the folder to write; it must not exist.
        exif: see `reading.pictures.read_picture`.
        pages: see `request.Request`, like the next.
        spacing: of TIFF of several pages.
        on_cases: see `importing.import_images`.

    Returns:
        The data set's name, and how many images there are.

    Raises:
        UserError: no such data set, images of another kind than its own, or ``out`` is there.
    """
    found = sorted(raw.glob(f"Dataset{number:03d}_*"))
    if len(found) != 1:
        there = shorten(", ".join(f.name for f in sorted(raw.glob("Dataset*"))) or "none", 200)
        raise UserError(f"-d {number}: the ID of one data set in {raw} is expected; there: {there}")
    dataset = found[0]
    description = read_dataset_json(dataset)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if out.exists():
        raise UserError(f"-o {out} is there already; name a new folder, or move it away")
    try:
        items, _ = images_of(folder)
        if not items:
            raise UserError(f"{folder}: there is nothing to read; expected: {READABLE}")
        model, its_look = _example(dataset / "imagesTr")
        cases = alone(items, 1 if len(model.images) == 1 else None)
        cases = a_case_of_each_page(cases) if pages == "cases" else cases
        reading = Reading(exif, spacing=tuple(spacing) if spacing else None)
        on_case = on_cases(2 * len(cases)) if on_cases else lambda: None
        looks = examine_cases(cases, reading, on_case)
        flat = not its_look.is_picture and len(its_look.size) == 2
        alike = [_as_written(look, flat=flat) for look in looks.values()]
        known = _channels_in_files(description)
        if not its_look.is_picture:
            its_look = replace(its_look, channels=known[0])  # NIfTI knows none
        check_alike([(model, its_look), *zip(cases, alike, strict=True)], named=True)
        _refuse_other_modalities(zip(cases, alike, strict=True), known, dataset.name)
        form = Form(description["file_ending"], "")
        dtypes = [dtype for look in alike for dtype in look.dtypes]
        if form_of(pictures=its_look.is_picture, dtypes=dtypes).ending != form.ending:
            raise UserError(
                f"{dataset.name} has files of {form.ending}, as these cannot be written"
            )
        _write(cases, out, form, reading, flat=flat, on_case=on_case)
    except OSError as error:
        raise UserError(f"{out} is not written: {reason_of(error)}") from error
    return dataset.name, len(cases)


def _write(
    cases: list[Case],
    out: Path,
    form: Form,
    reading: Reading,
    *,
    flat: bool,
    on_case: Callable[[], None],
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with folder_written_whole(out) as unfinished:

        def write(case: Case) -> None:
            images, _ = read_case(case, reading)
            write_images(images, unfinished, case.name, form, flat=flat)

        for _ in each(write, cases):
            on_case()


def _example(folder: Path) -> tuple[Case, Look]:
    """Return the first case of a data set, and a look at it."""
    items: list[Item] = list_folder(folder).items if folder.is_dir() else []
    if not items:
        raise UserError(f"there are no images in {folder} to compare with")
    first = items[0].name[: -len("_0000")]
    files = [item for item in items if item.name[: -len("_0000")] == first]
    case = Case(first, tuple(files), None)
    return case, examine_cases([case], Reading("ignore"), lambda: None)[first]


def _as_written(look: Look, *, flat: bool) -> Look:
    if look.is_picture:
        return replace(look, dtypes=tuple(stored_as(dtype) for dtype in look.dtypes))
    return replace(look, size=look.size[1:]) if flat and look.size[:-2] == (1,) else look


def _channels_in_files(description: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what a data set's files called their channels; ``CT`` where only the user said so."""
    names = [str(name) for name in description["channel_names"].values()]
    said = description.get("channels_in_files") or [["image"] * len(names)]
    return [
        tuple(
            "CT" if name.upper() == "CT" and not _modality(channel) else channel
            for channel, name in zip(channels, names, strict=False)
        )
        for channels in said
    ]


def _modality(channel: str) -> str:
    """Return the modality that DICOM says, or nothing: other files' channels are no capitals."""
    name = channel.removesuffix(INVERTED)
    return name if len(name) > 1 and name.isalpha() and name.isupper() else ""


def _refuse_other_modalities(
    looks: Iterable[tuple[Case, Look]], known: Sequence[tuple[str, ...]], dataset: str
) -> None:
    for case, look in looks:
        if not any(_may_be_of_one(look.channels, channels) for channels in known):
            ours = " or ".join(", ".join(channels) for channels in known)
            raise UserError(
                f"{case.images[0]} is {', '.join(look.channels)}, and the images of {dataset} are "
                f"{ours}: a model of these does not know such images"
            )


def _may_be_of_one(channels: Sequence[str], others: Sequence[str]) -> bool:
    """Whether no two modalities differ; of NIfTI and its like nobody knows any."""
    pairs = zip(map(_modality, channels), map(_modality, others), strict=False)
    return all(one == other or "" in (one, other) for one, other in pairs)
