"""Files of several pages, taken as a 2D case for each page."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from nnunet_vit_trainer.images.finding.pairing import Case
from nnunet_vit_trainer.images.finding.sources import Item
from vit_backbone import UserError, quoted, reason_of

from .tiffs import count_pages, is_tiff

Pages = Literal["volume", "cases"]


def a_case_of_each_page(cases: Sequence[Case]) -> list[Case]:
    """Replace each case of several pages by one of each, ``NAME_page001`` and so on.

    Args:
        cases: all of them; others than TIFF have one page.

    Raises:
        UserError: naming files of a case that have not the same number of pages, or two cases
            that have one name then.
    """
    found: dict[str, Case] = {}
    for case in cases:
        for one in _pages_of(case):
            if found.setdefault(one.name, one) is not one:
                raise UserError(f"two cases are called {quoted(one.name)}; rename one of the files")
    return [*found.values()]


def _pages_of(case: Case) -> list[Case]:
    counts = {item: _count(item) for item in _files_of(case)}
    if len({*counts.values()}) > 1:
        said = ", ".join(f"{item} has {count}" for item, count in counts.items())
        raise UserError(f"the same pages are expected in image and mask: {said}")
    count = next(iter(counts.values()))
    if count == 1:
        return [case]
    return [
        Case(
            f"{case.name}_page{page + 1:03d}",
            tuple(replace(item, page=page) for item in case.images),
            case.mask and _on(case.mask, page),
        )
        for page in range(count)
    ]


def _files_of(case: Case) -> list[Item]:
    masks = [case.mask] if case.mask else []
    return [*case.images, *(part for mask in masks for _, part in mask.parts or ((0, mask),))]


def _on(mask: Item, page: int) -> Item:
    parts = tuple((number, replace(part, page=page)) for number, part in mask.parts)
    return replace(mask, page=page, parts=parts)


def _count(item: Item) -> int:
    try:
        return count_pages(item.path) if item.kind == "picture" and is_tiff(item.path) else 1
    except UserError as error:
        raise UserError(f"{item} {error}") from error
    except Exception as error:  # of broken bytes
        raise UserError(f"{item} cannot be read ({reason_of(error, 80)})") from error
