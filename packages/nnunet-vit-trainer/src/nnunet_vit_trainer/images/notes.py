"""What a user ought to look at before a training, one line each; nothing of it stops the import."""

from collections import Counter

from .finding.sources import names_of
from .request import Imported

FOLDS = 5
"""What nnU-Net splits cases into."""

_HALF = 0.5


def counted_labels(imported: Imported) -> dict[str, tuple[int, int]]:
    """Return how many pixels each label has, and in how many masks it is.

    Args:
        imported: see `importing.import_images`.
    """
    pixels: Counter[int] = Counter()
    masks: Counter[int] = Counter()
    by_value = imported.labelling.by_value
    for look in imported.looks.values():
        if look.values is None:
            continue
        counts: Counter[int] = Counter()
        for value, n in imported.labelling.counted(look.values).items():
            counts[by_value[value]] += n
        pixels.update(counts)
        masks.update(counts.keys())
    numbers = imported.labelling.numbers
    return {name: (pixels[number], masks[number]) for name, number in numbers.items()}


def notes_of(imported: Imported) -> list[str]:
    """List what is worth a look.

    Args:
        imported: see `importing.import_images`.
    """
    looks = [*imported.looks.values(), *imported.test.values()]
    remarks = Counter(remark for look in looks for remark in look.remarks)
    notes = [f"{count} images: {remark}" for remark, count in remarks.items()]
    paired = imported.found.paired
    if paired.without_mask:
        notes.append(f"left out, for want of a mask: {names_of(paired.without_mask)}")
    if paired.without_image:
        notes.append(f"left out, for want of an image: {names_of(paired.without_image)}")
    return [*notes, *_of_labels(imported), *_of_training(imported)]


def _of_labels(imported: Imported) -> list[str]:
    labels = counted_labels(imported)
    background, *others = labels
    total = sum(pixels for pixels, _ in labels.values())
    zero = imported.labelling.values[background]
    empty = sum(
        look.values is not None and {*imported.labelling.counted(look.values)} <= {*zero}
        for look in imported.looks.values()
    )
    notes = [f"{empty} of {len(imported.looks)} masks are background alone"] if empty else []
    notes += [f"no mask holds {name!r}" for name in others if not labels[name][0]]
    share = labels[others[0]][0] / total
    if len(others) == 1 and share > _HALF:
        folders = any(case.mask and case.mask.parts for case in imported.found.paired.cases)
        remedy = "--labels background=... NAME=... says it the other way round"
        notes.append(
            f"{others[0]!r} is {share:.0%} of all pixels: is it the background? "
            f"{'invert its masks' if folders else remedy}"
        )
    return notes


def _of_training(imported: Imported) -> list[str]:
    notes = []
    if imported.flat:
        notes.append("volumes of one slice are 2D images now, without their place in the patient")
    if len(imported.looks) < FOLDS:
        notes.append(
            f"{len(imported.looks)} cases cannot be split into nnU-Net's {FOLDS} folds: train "
            "fold 'all', or write splits_final.json yourself"
        )
    if all(look.looks_like_ct for look in imported.looks.values()) and imported.channels != ("CT",):
        notes.append("the values look like CT's: --channels CT lets nnU-Net normalise them so")
    return notes
