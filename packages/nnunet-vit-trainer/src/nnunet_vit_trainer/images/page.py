"""The page that says what was found; it fits 80 columns."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vit_backbone import shorten

from .examine import Look, say_kind
from .finding.sources import Item, names_of
from .masks.values import say
from .notes import FOLDS, counted_labels, notes_of
from .reading.pixels import say_size
from .request import Imported
from .writing import stored_as

_LEAST = 1e-4
"""Of all pixels; a smaller share would look like none."""


def print_page(imported: Imported, *, check: bool, console: Console | None = None) -> None:
    """Print what was found, what is worth a look, and what comes next.

    Args:
        imported: see `importing.import_images`.
        check: nothing was written.
        console: to print to; ``None`` is the terminal, at most 80 columns wide.
    """
    console = console or Console(highlight=False)
    console.width = min(console.width, 80)
    name = imported.target.name
    title = f"{name} (nothing written: --check)" if check else name
    console.print(Text(title, style="bold"), "\n")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for fact, value in _facts(imported):
        facts.add_row(Text(fact), Text(value))
    console.print(facts, "", _labels(imported), "")
    for note in notes_of(imported):
        console.print(Text("note: ", style="yellow") + Text(note))
    if check:
        console.print("Leave --check away to write it.")
        return
    console.print(Text(f"Written: {imported.target}", overflow="fold"))
    number = int(name[7:10])
    fold = "0" if len(imported.looks) >= FOLDS else "all"
    console.print(
        "Next:",
        Text(f"  nnUNetv2_plan_and_preprocess -d {number} -c 2d --verify_dataset_integrity"),
        Text(f"  nnUNetv2_train_vit {number} 2d {fold} --config NAME"),
        "  (names: nnUNetv2_configs_vit --list; no GPU: recommended_tiny -device cpu)",
        sep="\n",
    )


def _facts(imported: Imported) -> list[tuple[str, str]]:
    found, looks = imported.found, [*imported.looks.values()]
    cases = found.paired.cases
    first = cases[0]
    masks = [case.mask for case in cases if case.mask]
    files = names_of([item.path.name for item in first.images], 3)
    mask = masks[0].path.name
    both = "in both" if mask == files else f"with {mask}"
    facts = [
        ("cases", f"{len(cases)}: {found.said}"),
        ("paired", f"by names, such as {files} {both}"),
        ("images", f"{_formats([i for c in cases for i in c.images])}, {_sizes(looks)}"),
        ("channels", f"{', '.join(imported.channels)} ({_dtypes(looks)})"),
        ("masks", _formats(masks)),
        ("stored as", _stored(imported)),
    ]
    spacings = sorted({look.spacing for look in looks if look.spacing})
    if spacings:
        said = [" x ".join(f"{side:.3g}" for side in spacing) for spacing in spacings]
        facts.insert(3, ("spacing", f"{said[0]}{f' to {said[-1]}' if said[1:] else ''} mm"))
    if imported.test:
        facts.append(("test", f"{len(imported.test)} images without masks, to imagesTs"))
    if found.left_alone:
        facts.append(("left alone", shorten(names_of(found.left_alone), 300)))
    return facts


def _stored(imported: Imported) -> str:
    form = imported.form
    dtypes = {dtype for look in imported.looks.values() for dtype in look.dtypes}
    rounded = form.ending == ".tif" and any(stored_as(dtype) != dtype for dtype in dtypes)
    kept = "in float32, in which nnU-Net reads it" if rounded else "which loses nothing"
    return f"{form.ending}, {kept} ({form.reader})"


def _labels(imported: Imported) -> Table:
    labelling = imported.labelling
    palette: dict[int, int] = {}
    for look in imported.looks.values():
        palette |= look.values.palette if look.values and not labelling.by_colour else {}
    counts = counted_labels(imported)
    total = sum(pixels for pixels, _ in counts.values())
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("label", overflow="fold")
    for title in ("number", "in the masks", "pixels", "masks"):
        table.add_column(title, justify="right")
    for name, values in labelling.values.items():
        shown = [f" ({say(palette[v], by_colour=True)})" if v in palette else "" for v in values]
        said = ", ".join(labelling.say(v) + more for v, more in zip(values, shown, strict=True))
        if labelling.threshold is not None:
            said = f"{'from' if 1 in values else 'below'} {labelling.threshold}"
        pixels, masks = counts[name]
        number = str(labelling.numbers[name])
        table.add_row(Text(name), number, said, _share(pixels / total), str(masks))
    return table


def _share(share: float) -> str:
    return "< 0.01%" if 0 < share < _LEAST else f"{share:.2%}"


def _formats(items: Sequence[Item]) -> str:
    counts = Counter(item.format for item in items)
    return ", ".join(f"{count} {format_}" for format_, count in counts.most_common())


def _sizes(looks: Sequence[Look]) -> str:
    sizes = sorted({look.size for look in looks}, key=lambda size: (len(size), *size))
    said = [say_size(size) for size in sizes]
    unit = "px" if len(sizes[0]) == 2 else "voxels"
    return f"{said[0]}{f' to {said[-1]}' if said[1:] else ''} {unit}"


def _dtypes(looks: Sequence[Look]) -> str:
    return "; ".join(sorted({say_kind(look).rpartition(", ")[2] for look in looks}))
