"""All images and masks, one by one: whether they fit each other, and what they are together."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from vit_backbone import UserError

from .finding.pairing import Case
from .masks.values import Values, count
from .reading.cases import Reading, read_case
from .reading.volumes import INVERTED

_THREADS = min(4, os.cpu_count() or 1)
_NAMED = 3
_DTYPES = {"uint8": "8 bit", "uint16": "16 bit", "float32": "32 bit float"}
_HOUNSFIELD = -500
"""Values below this, in volumes of whole numbers, look like CT."""

_Done = TypeVar("_Done")


@dataclass(frozen=True)
class Look:
    """What one case is.

    Attributes:
        size: (y, x) or (z, y, x).
        dtypes: of the images' values.
        channels: names, as the files have them.
        spacing: x first, in mm; ``None`` of pictures.
        values: of the mask; ``None`` of a test image.
        remarks: see `Pixels`.
        low: the lowest value in the images.
    """

    size: tuple[int, ...]
    dtypes: tuple[str, ...]
    channels: tuple[str, ...]
    spacing: tuple[float, ...] | None
    values: Values | None
    remarks: tuple[str, ...]
    low: float

    @property
    def is_picture(self) -> bool:
        """Whether it has no place in a patient."""
        return self.spacing is None

    @property
    def looks_like_ct(self) -> bool:
        """Whether its values may be Hounsfield units."""
        return not self.is_picture and self.low < _HOUNSFIELD and len(self.channels) == 1


def examine_cases(
    cases: Sequence[Case], reading: Reading, on_case: Callable[[], None]
) -> dict[str, Look]:
    """Look at all pixels of all cases.

    Args:
        cases: at least one.
        reading: how files are read.
        on_case: called after each.

    Returns:
        What each is, by its name.

    Raises:
        UserError: naming up to three files that cannot be read or do not fit, of all such.
    """
    looks, faults = {}, []
    for case, look in zip(cases, each(lambda case: _try(case, reading), cases), strict=True):
        on_case()
        if isinstance(look, Look):
            looks[case.name] = look
        else:
            faults.append(look)
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise UserError(f"{'; '.join(faults[:_NAMED])}{more}")
    return looks


def check_alike(looks: Sequence[tuple[Case, Look]], *, named: bool) -> None:
    """Refuse images that are not of one kind: nnU-Net trains on the same channels throughout.

    Args:
        looks: see `examine_cases`, with their cases.
        named: the user names the channels, so the files' names of them need not be the same.

    Raises:
        UserError: naming an image of each kind.
    """
    kinds: dict[tuple[object, ...], list[tuple[Case, Look]]] = {}
    for case, look in looks:
        # The scale of a picture's values is that of its bits; a volume's values are what they are.
        scale = frozenset(look.dtypes) if look.is_picture else ()
        channels = tuple(c.endswith(INVERTED) for c in look.channels) if named else look.channels
        kind = (look.is_picture, len(look.size), channels, scale)
        kinds.setdefault(kind, []).append((case, look))
    if len(kinds) > 1:
        first = [(len(alike), *alike[0]) for alike in kinds.values()]
        said = [f"{count} {say_kind(look)} ({case.images[0]})" for count, case, look in first]
        raise UserError(
            f"the images are of {len(kinds)} kinds: {'; '.join(said[:_NAMED])}; bring them to one"
        )


def is_stack(case: Case, look: Look) -> bool:
    """Say whether a case is a volume that was a TIFF of several pages."""
    return not look.is_picture and any(item.format == "TIFF" for item in case.images)


def say_kind(look: Look) -> str:
    """Say what an image is, such as ``RGB, 8 bit``.

    Args:
        look: at it.
    """
    joint = "" if look.is_picture and len(look.channels) == 3 else ", "
    types = ", ".join(_DTYPES.get(dtype, dtype) for dtype in sorted({*look.dtypes}))
    where = "" if look.is_picture else f" in {len(look.size)}D"
    return f"{joint.join(look.channels)}{where}, {types}"


def each(work: Callable[[Case], _Done], cases: Sequence[Case]) -> Iterator[_Done]:
    """Do some work on all cases, a few at once, and yield what it returns in their order.

    Args:
        work: on one case.
        cases: all of them; where the caller stops, those that have not begun are left out.
    """
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield from pool.map(work, cases)
    finally:
        pool.shutdown(cancel_futures=True)


def _try(case: Case, reading: Reading) -> Look | str:
    try:
        return _look_at(case, reading)
    except UserError as error:
        return str(error)


def _look_at(case: Case, reading: Reading) -> Look:
    images, mask = read_case(case, reading)
    values = None
    if mask is not None:
        try:
            # A mask of a file for each class has had its threshold.
            joined = case.mask is not None and case.mask.parts
            values = count(mask, None if joined else reading.threshold)
        except UserError as error:
            raise UserError(f"{case.mask} {error}") from error
    geometry = images[0].geometry
    return Look(
        size=images[0].size,
        dtypes=tuple(str(image.values.dtype) for image in images),
        channels=tuple(name for image in images for name in image.channels),
        spacing=geometry.spacing if geometry else None,
        values=values,
        remarks=tuple(remark for image in images for remark in image.remarks),
        low=min(float(image.values.min()) for image in images),
    )
