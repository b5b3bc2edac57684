"""A folder of images and masks becomes a raw data set of nnU-Net: whole, or not at all."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

from nnunet_vit_trainer.checkpoints.files import folder_written_whole
from nnunet_vit_trainer.plans.datasets import free_name
from vit_backbone import UserError, quoted, reason_of, shorten

from .examine import Look, check_alike, each, examine_cases, is_stack
from .finding.layouts import Found, find_images
from .finding.pairing import Case, alone
from .finding.sources import names_of
from .masks.labels import decide
from .masks.named import Named, named_by_folders, parse_labels
from .reading.cases import Reading, read_case
from .reading.pages import a_case_of_each_page
from .request import Imported, Request
from .writing import form_of, write_images, write_mask

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def import_images(
    request: Request,
    raw: Path,
    *,
    check: bool = False,
    on_cases: Callable[[int], Callable[[], None]] | None = None,
) -> Imported:
    """Write a folder of images and masks as a data set, or nothing where anything is doubtful.

    Args:
        request: what, and how.
        raw: the folder ``nnUNet_raw``; it is made.
        check: write nothing.
        on_cases: told how many steps there are; what it returns is called after each.

    Raises:
        UserError: naming what does not fit, or is not known, and what to do.
    """
    if not _NAME.fullmatch(request.name):
        raise UserError(
            f"-n {quoted(request.name)}: letters, digits, '-', '_' and '.' are expected"
        )
    if request.threshold is not None and request.threshold < 1:
        raise UserError(f"--threshold {request.threshold}: at least 1 is expected, 0 is background")
    target = raw / free_name(request.number, request.name, raw)
    named = parse_labels(request.labels) if request.labels else None
    reading = Reading(request.exif, request.threshold, request.spacing)
    try:
        found = find_images(
            request.folder,
            request.images,
            request.masks,
            suffix=request.mask_suffix,
            test=request.test,
            missing_is_absent=request.missing_is_absent,
        )
        _refuse_unpaired(found, skip=request.skip_unpaired)
        named = _of_folders(found, named, request.missing_is_absent)
        cases = found.paired.cases
        tests = alone(found.test, len(cases[0].images))
        if request.pages == "cases":
            files, cases, tests = len(cases), a_case_of_each_page(cases), a_case_of_each_page(tests)
            if len(cases) == files:
                raise UserError("--pages cases: no image has several pages; leave it away")
            found.paired = replace(found.paired, cases=cases)
        steps = (len(cases) + len(tests)) * (1 if check else 2)
        on_case = on_cases(steps) if on_cases else lambda: None
        looks = examine_cases(cases, reading, on_case)
        test_looks = examine_cases(tests, reading, on_case)
        alike = zip([*cases, *tests], [*looks.values(), *test_looks.values()], strict=True)
        check_alike([*alike], named=request.channels is not None)
        if request.spacing and not any(map(is_stack, cases, looks.values())):
            raise UserError("--spacing is for TIFF of several pages; there are none, or as cases")
        imported = _settled(request, target, found, named, looks, test_looks)
        if not check:
            _write(request, imported, tests, reading, on_case)
    except OSError as error:
        raise UserError(f"{target.name} is not imported: {reason_of(error)}") from error
    return imported


def _settled(
    request: Request,
    target: Path,
    found: Found,
    named: Named | None,
    looks: dict[str, Look],
    tests: dict[str, Look],
) -> Imported:
    """Decide what becomes of what was found, or refuse it."""
    masks = {
        _relative(case, request.folder): look.values
        for case in found.paired.cases
        if (look := looks[case.name]).values is not None
    }
    alike = [*looks.values(), *tests.values()]
    dtypes = [dtype for look in alike for dtype in look.dtypes]
    return Imported(
        target,
        found,
        looks,
        tests,
        decide(masks, named, None if found.classes else request.threshold),
        _channels(request, found, alike[0]),
        form_of(pictures=alike[0].is_picture, dtypes=dtypes),
        flat=all(len(look.size) == 3 and look.size[0] == 1 for look in alike),
    )


def _write(
    request: Request,
    imported: Imported,
    tests: Sequence[Case],
    reading: Reading,
    on_case: Callable[[], None],
) -> None:
    raw = imported.target.parent
    raw.mkdir(parents=True, exist_ok=True)
    cases = imported.found.paired.cases
    with folder_written_whole(imported.target) as folder:
        for name in ("imagesTr", "labelsTr", *(["imagesTs"] if tests else [])):
            (folder / name).mkdir()
        write = partial(_write_case, imported=imported, reading=reading, folder=folder)
        for _ in each(write, [*cases, *tests]):
            on_case()
        labelling = imported.labelling
        said = [f"{n}={','.join(map(labelling.say, v))}" for n, v in labelling.values.items()]
        generate_dataset_json(
            str(folder),
            dict(enumerate(imported.channels)),
            labelling.numbers,
            len(cases),
            imported.form.ending,
            overwrite_image_reader_writer=imported.form.reader,
            license="not said",
            channels_in_files=_channels_in_files(imported),  # for `inputs.convert_images`
            converted_by="nnUNetv2_import_images_vit",
            description=f"The masks' values were {' '.join(said)}"
            + ("" if reading.threshold is None else f", 1 from {reading.threshold} on"),
        )
        free_name(request.number, request.name, raw)  # another may have been written meanwhile


def _write_case(case: Case, *, imported: Imported, reading: Reading, folder: Path) -> None:
    images, mask = read_case(case, reading)
    form, flat = imported.form, imported.flat
    place = folder / ("imagesTs" if case.mask is None else "imagesTr")
    write_images(images, place, case.name, form, flat=flat)
    if mask is not None:
        try:
            labels = imported.labelling.apply(mask)
        except UserError as error:
            raise UserError(f"{case.mask} {error}") from error
        write_mask(labels, mask.geometry, folder / "labelsTr", case.name, form, flat=flat)


def _channels_in_files(imported: Imported) -> list[tuple[str, ...]]:
    """Return what the files call their channels, which may differ where the user names them."""
    looks = (*imported.looks.values(), *imported.test.values())
    return sorted({look.channels for look in looks})


def _of_folders(found: Found, named: Named | None, missing_is_absent: bool) -> Named | None:
    """Return which value is which label: as folders of classes say it, or as the user does."""
    if not found.classes:
        if missing_is_absent:
            raise UserError("--missing_is_absent is for a folder of masks for each class")
        return named
    if named is not None:
        raise UserError(
            f"--labels: the folders of masks name them ({shorten(', '.join(found.classes), 200)}); "
            "leave it away"
        )
    return named_by_folders(found.classes)


def _refuse_unpaired(found: Found, *, skip: bool) -> None:
    images, masks = found.paired.without_mask, found.paired.without_image
    said = []
    if images:
        said.append(f"{len(images)} images have no mask: {names_of(images)}")
    if masks:
        said.append(f"{len(masks)} masks have no image: {names_of(masks)}")
    if not found.paired.cases:
        raise UserError(
            f"no image has a mask of its name ({'; '.join(said)}): equal names are expected, or "
            "x.png and x_mask.png, or --mask_suffix TEXT"
        )
    if said and not skip:
        raise UserError(f"{'; '.join(said)} (--skip_unpaired goes on without them)")


def _channels(request: Request, found: Found, look: Look) -> tuple[str, ...]:
    """Return the channels' names: the user's, those of a case's files, or the files' own."""
    names = look.channels
    if request.channels is not None:
        if len(request.channels) != len(names):
            raise UserError(
                f"--channels names {len(request.channels)}, the images have {len(names)} channels "
                f"({shorten(', '.join(names))})"
            )
        if not all(name.strip() for name in request.channels):
            raise UserError("--channels: an empty name is none; nnU-Net normalises by it")
        return tuple(request.channels)
    files = found.paired.channels
    if len(files) != len(names):
        return names
    # 0000 is no name.
    return tuple(f"channel_{int(name)}" if name.isdecimal() else name for name in files)


def _relative(case: Case, folder: Path) -> str:
    """Return where a case's mask lies, from the folder that was given."""
    assert case.mask is not None
    path = case.mask.path
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
