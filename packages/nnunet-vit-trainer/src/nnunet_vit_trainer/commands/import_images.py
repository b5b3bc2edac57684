# PYTHON_ARGCOMPLETE_OK
"""The command that makes a raw data set of nnU-Net from a folder of images and masks."""

import argparse
import math
import shlex
from pathlib import Path

from nnunet_vit_trainer.plans.datasets import environment
from vit_backbone import UserError

from .errors import one_line_errors
from .parser import CommandParser
from .progress import on_cases_of


@one_line_errors
def import_images() -> None:
    """``nnUNetv2_import_images_vit``: a folder of images and masks as a raw data set."""
    arguments = _parser().parse_args()
    raw = Path(environment("nnUNet_raw"))
    if arguments.o is not None:
        _convert(arguments, raw)
        return
    if arguments.n is None:
        raise UserError("-n NAME is needed, such as -n Vessels")
    from nnunet_vit_trainer.images.importing import import_images
    from nnunet_vit_trainer.images.page import print_page
    from nnunet_vit_trainer.images.request import Request

    others = ("check", "d", "n", "o")
    given = {key: value for key, value in vars(arguments).items() if key not in others}
    request = Request(number=arguments.d, name=arguments.n, **given)
    with on_cases_of("looking and writing") as on_cases:
        imported = import_images(request, raw, check=arguments.check, on_cases=on_cases)
    print_page(imported, check=arguments.check)


def _convert(arguments: argparse.Namespace, raw: Path) -> None:
    """Write images alone, for a prediction."""
    takes = ("folder", "d", "o", "exif", "spacing", "pages")
    given = [key for key, value in vars(arguments).items() if not (value is None or value is False)]
    idle = [key for key in given if key not in takes]
    if idle:
        option = f"-{idle[0]}" if idle[0] == "n" else f"--{idle[0]}"
        raise UserError(f"-o writes images alone; leave {option} away")
    from nnunet_vit_trainer.images.inputs import convert_images

    with on_cases_of("looking and writing") as on_cases:
        name, count = convert_images(
            arguments.folder,
            arguments.d,
            raw,
            arguments.o,
            exif=arguments.exif,
            pages=arguments.pages,
            spacing=arguments.spacing,
            on_cases=on_cases,
        )
    print(f"{count} images as {name} has them: {arguments.o}")
    print(f"Predict: nnUNetv2_predict_vit -i {shlex.quote(str(arguments.o))} -o MASKS "
          f"-d {arguments.d} -p PLANS")  # fmt: skip


def _distance(text: str) -> float:
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0 < distance < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no distance in mm")
    return distance


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_import_images_vit",
        example="nnUNetv2_import_images_vit PHOTOS -d 42 -n Vessels --check",
        about="Make a raw data set of nnU-Net from a folder of images and masks: PNG, JPEG, TIFF, "
        "BMP, GIF, WebP, PPM, NIfTI, NRRD, MetaImage or DICOM. What is doubtful is refused with "
        "the file's name, and then nothing is written.",
        read_on="docs/own-data.md",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of images and masks")
    add("-d", type=int, required=True, metavar="ID", help="the data set's, a free one")
    add("-n", metavar="NAME", help="the data set's, such as Vessels")
    add("-o", type=Path, metavar="OUT", help="convert images alone, for prediction, as ID has them")
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
    add(
        "--pages",
        choices=("volume", "cases"),
        default="volume",
        help="what a TIFF of several pages is (default: %(default)s)",
    )
    add(
        "--spacing", nargs=3, type=_distance, metavar=("X", "Y", "Z"), help="of such volumes, in mm"
    )
    add(
        "--missing_is_absent",
        action="store_true",
        help="masks/CLASS/NAME.png: no file means nothing of it",
    )
    add("--skip_unpaired", action="store_true", help="leave out what has no mask, or no image")
    add("--check", action="store_true", help="say what would be done, and write nothing")
    return parser
