"""What is to be predicted: the files of each case, and what of it is done already."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_backbone import UserError, quoted

BESIDE_MASKS = ("predict_from_raw_data_args.json", "dataset.json", "plans.json")
"""What nnU-Net lays into each folder of predictions; the first of them nobody else writes."""

_REMEDY = "nnUNetv2_import_images_vit FOLDER -d ID -o INPUTS makes them as the data set has them"


@dataclass(frozen=True)
class Case:
    """One image: its name, as its mask is called, and its files, a channel or several each."""

    name: str
    files: tuple[Path, ...]


def find_cases(inputs: Sequence[Path], file_ending: str) -> list[Case]:
    """Find the cases of a folder, or of files, by name.

    ``name_0000<ending>``, ``name_0001<ending>`` ... are the channels of one case, as everywhere in
    nnU-Net. A single file may be called as it likes.

    Args:
        inputs: one folder, or files.
        file_ending: of the data set's images, such as ``.nii.gz``.

    Raises:
        UserError: what is not there, has another ending or no channel number, files of one case
            from different folders, or a channel that is missing before another.
    """
    folder = len(inputs) == 1 and inputs[0].is_dir()
    files = sorted(inputs[0].iterdir()) if folder else list(inputs)
    if folder:  # nnU-Net takes what has the ending, and leaves other files alone
        files = [file for file in files if file.name.endswith(file_ending) and file.is_file()]
    if not files:
        raise UserError(f"{inputs[0]} holds no image with the ending {file_ending!r}; {_REMEDY}")
    for file in files:
        if file.is_dir():
            raise UserError(f"{file} is a folder; one folder is expected, or files")
        if not file.is_file():
            raise UserError(f"there is no image {file}")
        if not file.name.endswith(file_ending):
            raise UserError(
                f"{file}: the model was trained on images that end in {file_ending!r}; {_REMEDY}"
            )
    if not folder and len(files) == 1:
        name = re.sub(r"(?<=.)_\d{4}$", "", files[0].name.removesuffix(file_ending))
        if not name:  # the mask would be a hidden file
            raise UserError(f"{files[0]} has no name before {file_ending!r}")
        return [Case(name, (files[0],))]
    return _grouped(files, file_ending)


def _grouped(files: Sequence[Path], file_ending: str) -> list[Case]:
    channels: dict[str, dict[str, Path]] = {}
    for file in files:
        matched = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(file_ending))
        if matched is None:
            other = f"{file.name.removesuffix(file_ending)}_0000{file_ending}"
            if file.with_name(other) in files:
                raise UserError(
                    f"{file.name} has no channel number, and {other} is there; if it is a mask, "
                    "masks belong into another folder than images (-o)"
                )
            raise UserError(f"{file.name} has no channel number; call it {other}; {_REMEDY}")
        name, channel = matched.groups()
        of = channels.setdefault(name, {})
        first = next(iter(of.values()), file)
        if channel not in of and first.parent != file.parent:
            raise UserError(
                f"{first} and {file} would be channels of one case; put them into one folder"
            )
        same = of.setdefault(channel, file)
        if same is not file:
            raise UserError(f"{same} and {file} would both become {name}{file_ending}")
    return [Case(name, _in_order(name, of)) for name, of in sorted(channels.items())]


def _in_order(name: str, channels: dict[str, Path]) -> tuple[Path, ...]:
    """Return the files of a case by their channels; nnU-Net would take others for a missing one."""
    numbers = [f"{number:04d}" for number in range(len(channels))]
    if missing := [number for number in numbers if number not in channels]:
        raise UserError(
            f"case {name} has the channels {', '.join(sorted(channels))}, and not {missing[0]}"
        )
    return tuple(channels[number] for number in numbers)


def check_output(cases: Sequence[Case], output: Path, file_ending: str) -> None:
    """Refuse a folder where the mask of a case would replace an image.

    Args:
        cases: to predict.
        output: the folder.
        file_ending: of images and masks.

    Raises:
        UserError: naming the image.
    """
    images = {file.resolve() for case in cases for file in case.files}
    for case in cases:
        mask = output / f"{case.name}{file_ending}"
        if mask.resolve() in images:
            raise UserError(f"the mask of {case.name} would replace the image {mask}; use other -o")


def check_replaced(
    cases: Sequence[Case], output: Path, file_ending: str, *, probabilities: bool
) -> None:
    """Refuse a folder where something would be replaced that no prediction wrote.

    It may be that of the labels, or of a data set.

    Args:
        cases: to predict.
        output: the folder; it need not exist.
        file_ending: of masks.
        probabilities: whether they and properties are written too.

    Raises:
        UserError: naming a file of it.
    """
    mark, *others = BESIDE_MASKS
    if (output / mark).is_file():
        return
    endings = (file_ending, ".npz", ".pkl") if probabilities else (file_ending,)
    written = (f"{case.name}{ending}" for case in cases for ending in endings)
    for name in (*others, *written):
        if (output / name).exists():
            raise UserError(
                f"{output / name} would be replaced, and no prediction wrote it ({mark} is not "
                "beside it); use other -o"
            )


def not_done(
    cases: Sequence[Case], output: Path, file_ending: str, *, probabilities: bool
) -> list[Case]:
    """Leave out the cases whose results lie in a folder; what lies there is whole (`results`).

    Args:
        cases: to look for.
        output: the folder.
        file_ending: of masks.
        probabilities: whether ``<name>.npz`` is to be there too.
    """
    endings = (file_ending, ".npz") if probabilities else (file_ending,)
    return [
        case
        for case in cases
        if not all((output / f"{case.name}{ending}").is_file() for ending in endings)
    ]


def part_of(cases: Sequence[Case], part: int, parts: int) -> list[Case]:
    """Return the share of one of several machines, every ``parts``-th case.

    Raises:
        UserError: no such part.
    """
    if not 0 <= part < parts:
        raise UserError(f"-part_id {quoted(part)}: it counts from 0 to -num_parts {parts} - 1")
    return list(cases[part::parts])
