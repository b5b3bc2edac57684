# PYTHON_ARGCOMPLETE_OK
"""The command that plans a data set for a ViT."""

import argparse
import re
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vit_backbone import UserError

from .arguments import complete_by, complete_config, complete_dataset
from .errors import one_line_errors
from .parser import CommandParser

if TYPE_CHECKING:
    from nnunet_vit_trainer.planning.run import Planned


@one_line_errors
def plan() -> None:
    """``nnUNetv2_plan_vit``: spacing, tile and batch by a backbone's patches and the memory."""
    arguments = _parser().parse_args()
    _check(arguments)
    from rich.console import Console

    from nnunet_vit_trainer.planning.run import plan

    with Console(stderr=True).status("reading ...") as status:
        planned = plan(
            arguments.dataset_name_or_id,
            arguments.config,
            plans_name=arguments.p,
            memory=arguments.gpu_memory_target,
            processes=arguments.npfp,
            on_progress=status.update,
        )
    _print(planned, arguments)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what nnU-Net would misread, or could not be meant."""
    if not re.fullmatch(r"[A-Za-z0-9.-]+(_[A-Za-z0-9.-]+)*", arguments.p) or len(arguments.p) > 100:
        raise UserError(
            f"-p {arguments.p}: up to 100 letters, digits, '.', '-' and single '_' between them "
            "are expected"
        )
    target = arguments.gpu_memory_target
    if target is not None and not 0 < target < 10_000:
        raise UserError(f"-gpu_memory_target {target:g}: GiB above 0 are expected, such as 24")
    if arguments.npfp < 1:
        raise UserError(f"-npfp {arguments.npfp}: at least 1 is expected")


def _print(planned: "Planned", arguments: argparse.Namespace) -> None:
    from nnunet_vit_trainer.planning.page import print_reasons

    config = shlex.quote(arguments.config)
    print_reasons(f"{planned.dataset} 2d, config {Path(arguments.config).stem}", planned.reasons)
    print(f"\nWritten: {planned.file}\nNext:")
    plans, which = shlex.quote(arguments.p), shlex.quote(arguments.dataset_name_or_id)
    if not planned.preprocessed:
        number = int(planned.dataset[7:10])
        print(f"  nnUNetv2_preprocess -d {number} -c 2d -plans_name {plans}")
    print(f"  nnUNetv2_doctor_vit {which} 2d --config {config} -p {plans}")
    print(f"  nnUNetv2_train_vit {which} 2d {planned.fold} --config {config} -p {plans}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_plan_vit",
        example="nnUNetv2_plan_vit 42 --config my.yaml -gpu_memory_target 24",
        about="Plan a raw data set for a ViT, as nnUNetv2_plan_experiment does for a U-Net: a tile "
        "of whole patches, as large as images and memory allow; finer pixels where objects are "
        "few patches wide; the batch from what is left. Prints its reasons. The 2d configuration "
        "alone is planned.",
        read_on="docs/planning.md",
    )
    add = parser.add_argument
    dataset = add("dataset_name_or_id", metavar="DATASET", help="name or ID, in nnUNet_raw")
    complete_by(partial(complete_dataset, variable="nnUNet_raw"), dataset)
    config = add(
        "--config",
        required=True,
        metavar="FILE_OR_NAME",
        help="YAML file, or a shipped config's name, that will be trained",
    )
    complete_by(complete_config, config)
    add(
        "-gpu_memory_target",
        type=float,
        metavar="GIB",
        help="memory to plan for (default: of the GPU here, else 8, as nnU-Net)",
    )
    add(
        "-p", default="nnUNetViTPlans", metavar="PLANS", help="name to write (default: %(default)s)"
    )
    add(
        "-npfp",
        type=int,
        default=8,
        metavar="N",
        help="processes that extract the fingerprint, where there is none (default: %(default)s)",
    )
    return parser
