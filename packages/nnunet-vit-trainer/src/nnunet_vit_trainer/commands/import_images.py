"""The command that makes a raw data set of nnU-Net from a folder of images and masks."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nnunet_vit_trainer.plans.datasets import environment

from .errors import one_line_errors


@one_line_errors
def import_images() -> None:
    """``nnUNetv2_import_images_vit``: a folder of images and masks as a raw data set."""
    arguments = _parser().parse_args()
    raw = environment("nnUNet_raw")
    from nnunet_vit_trainer.images.importing import Request, import_images
    from nnunet_vit_trainer.images.page import print_page

    given = {key: value for key, value in vars(arguments).items() if key not in ("check", "d", "n")}
    request = Request(number=arguments.d, name=arguments.n, **given)
    with _progress() as on_cases:
        imported = import_images(request, Path(raw), check=arguments.check, on_cases=on_cases)
    print_page(imported, check=arguments.check)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], Callable[[], None]]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("looking and writing", BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:

        def on_cases(steps: int) -> Callable[[], None]:
            task = bar.add_task("", total=steps)
            return lambda: bar.advance(task)

        yield on_cases


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make a raw data set of nnU-Net from a folder of images and masks: PNG, JPEG, "
        "TIFF, BMP, GIF, NIfTI, NRRD, MetaImage or DICOM. What is doubtful is refused with the "
        "file's name, and then nothing is written.",
        epilog="Example: nnUNetv2_import_images_vit PHOTOS -d 42 -n Vessels --labels vessel=255. "
        "docs/own-data.md tells which folders it understands.",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of images and masks")
    add("-d", type=int, required=True, metavar="ID", help="the data set's, a free one")
    add("-n", required=True, metavar="NAME", help="the data set's, such as Vessels")
    add("--images", metavar="DIR", help="the folder of images (default: found by its name)")
    add("--masks", metavar="DIR", help="the folder of masks (default: found by its name)")
    add("--test", metavar="DIR", help="images without masks (default: imagesTs or test)")
    add("--mask_suffix", metavar="TEXT", help="how masks' names end, if not _mask, _seg, ...")
    add(
        "--labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="which value (255) or colour (#ff0000) of the masks is which label; or a YAML or JSON "
        "file of them. Without it, 0 and one other value, or 0, 1, 2, ... are taken",
    )
    add("--threshold", type=int, metavar="N", help="grey masks: from N on is foreground")
    add("--channels", nargs="+", metavar="NAME", help="names, such as CT (nnU-Net looks at them)")
    add("--exif", choices=("apply", "ignore"), help="pictures that say that they are to be turned")
    add("--skip_unpaired", action="store_true", help="leave out what has no mask, or no image")
    add("--check", action="store_true", help="say what would be done, and write nothing")
    return parser
