# PYTHON_ARGCOMPLETE_OK
"""The command that makes neighbouring slices channels: of a data set, or of images to predict."""

import argparse
import shlex
from pathlib import Path

from nnunet_vit_trainer.config.names import DEFAULT_PLANS
from nnunet_vit_trainer.plans.datasets import environment, find_dataset
from nnunet_vit_trainer.plans.json_file import read_json
from vit_backbone import UserError

from .errors import one_line_errors
from .parser import CommandParser
from .progress import on_cases_of


@one_line_errors
def neighbours() -> None:
    """``nnUNetv2_neighbours_vit``: slices with their neighbours as channels."""
    arguments = _parser().parse_args()
    if arguments.i is None:
        _convert_dataset(arguments)
    else:
        _convert_inputs(arguments)


def _convert_dataset(arguments: argparse.Namespace) -> None:
    if arguments.dataset is None or arguments.d is None:
        raise UserError("DATASET and -d NEW_ID are needed, or -i, -o and -m for a prediction")
    if given := [f"-{key}" for key in ("o", "m") if getattr(arguments, key) is not None]:
        raise UserError(f"{', '.join(given)} goes with -i, for images to predict")
    from nnunet_vit_trainer.neighbours.converting import convert_dataset

    name, preprocessed = find_dataset(arguments.dataset)
    file = preprocessed / f"{arguments.p}.json"
    if not file.is_file():
        raise UserError(f"there is no {file}; run nnUNetv2_plan_and_preprocess --no_pp, or give -p")
    plans = read_json(file)
    if missing := {"image_reader_writer", "transpose_forward"} - plans.keys():
        lacks = ", ".join(sorted(missing))
        raise UserError(f"{file} is no plans file of nnU-Net: it lacks {lacks}")
    raw = Path(environment("nnUNet_raw"))
    if not (raw / name).is_dir():
        raise UserError(f"there is no {raw / name}: the raw data set is what is written again")
    with on_cases_of("writing") as on_cases:
        target, of = convert_dataset(
            raw / name, plans, preprocessed.parent, arguments.d, arguments.k, on_cases
        )
    print(f"Written: {target.name}")
    print(f"Channels: each slice and {of.count} on either side, along axis {of.axis} of (z, y, x)")
    if (preprocessed / "splits_final.json").is_file():
        print(f"Cases are named as {name}'s: copy its splits_final.json once it is preprocessed")
    print(f"Next: nnUNetv2_plan_and_preprocess -d {arguments.d} -c 2d")


def _convert_inputs(arguments: argparse.Namespace) -> None:
    if arguments.o is None or arguments.m is None:
        raise UserError("-i goes with -o OUT and -m MODEL_FOLDER")
    if arguments.dataset is not None or arguments.d is not None or arguments.k != 1:
        raise UserError("-i writes images for a prediction; leave DATASET, -d and -k away")
    from nnunet_vit_trainer.neighbours.converting import convert_inputs

    with on_cases_of("writing") as on_cases:
        convert_inputs(arguments.i, arguments.m / "dataset.json", arguments.o, on_cases)
    model, out = shlex.quote(str(arguments.m)), shlex.quote(str(arguments.o))
    print(f"Next: nnUNetv2_predict_vit -i {out} -o MASKS -m {model}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_neighbours_vit",
        example="nnUNetv2_neighbours_vit 42 -d 43\n"
        "nnUNetv2_neighbours_vit -i IMAGES -o STACKED -m MODEL_FOLDER",
        about="Make the neighbours of each slice channels of it (2.5D): a raw data set of volumes "
        "is written again with 2k+1 times its channels, which stock nnU-Net plans, trains and "
        "predicts. Images to predict are written so too.",
        read_on="docs/neighbours.md",
    )
    add = parser.add_argument
    add("dataset", nargs="?", metavar="DATASET", help="name or ID; it is planned already")
    add("-d", type=int, metavar="NEW_ID", help="the new data set's, a free one")
    add("-k", type=int, default=1, metavar="K", help="neighbours on either side (default: 1)")
    add("-p", default=DEFAULT_PLANS, metavar="PLANS", help="which say where slices are cut")
    add("-i", type=Path, metavar="IMAGES", help="for a prediction: as the first data set has them")
    add("-o", type=Path, metavar="OUT", help="the folder to write them to")
    add("-m", type=Path, metavar="MODEL_FOLDER", help="of the model that is to predict them")
    return parser
