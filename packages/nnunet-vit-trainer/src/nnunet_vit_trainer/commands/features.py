# PYTHON_ARGCOMPLETE_OK
"""The command that draws what a backbone sees."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_backbone import UserError

from .errors import one_line_errors
from .parser import CommandParser

if TYPE_CHECKING:
    from nnunet_vit_trainer.pictures.backbones import View
    from nnunet_vit_trainer.pictures.inputs import Input


@one_line_errors
def features() -> None:
    """``nnUNetv2_features_vit``: patch features as colours, plain and as trained."""
    arguments = _parser().parse_args()
    if not arguments.o.parent.is_dir() or arguments.o.is_dir():
        raise UserError(f"-o {arguments.o}: a file in a folder that is there is expected")
    if arguments.o.suffix.lower() != ".png":
        raise UserError(f"-o {arguments.o}: a PNG is written; a name that ends in .png is expected")
    if arguments.o.resolve() in [image.resolve() for image in arguments.images]:
        raise UserError(f"-o {arguments.o} would replace an image; use another name")
    if arguments.config and (arguments.f or arguments.chk):
        raise UserError("-f and -chk choose a checkpoint of --results; --config has none")
    from nnunet_vit_trainer.checkpoints.files import written_whole
    from nnunet_vit_trainer.launch.checks import check_device
    from nnunet_vit_trainer.pictures.features import FeatureRow, draw_features, patch_features

    check_device(arguments.device, 1)
    by = _by_results if arguments.results else _by_config
    inputs, views, said = by(arguments)
    for view in views:
        view.backbone.to(arguments.device)
    rows = [
        FeatureRow(
            shown.name,
            shown.image,
            [
                patch_features(
                    view.backbone,
                    view.input_norm,
                    shown.normalised.to(arguments.device),
                    view.tap,
                )
                for view in views
            ],
            shown.aspect,
        )
        for shown in inputs
    ]
    picture = draw_features(rows, [view.title for view in views], said)
    with written_whole(arguments.o) as unfinished:
        unfinished.write_bytes(picture)
    print(arguments.o)


def _by_results(arguments: argparse.Namespace) -> tuple[list["Input"], list["View"], str]:
    """Read images as a trained model does, and load its backbone, and as it was before."""
    from nnunet_vit_trainer.checkpoints.model_folder import named_folder, read_model
    from nnunet_vit_trainer.pictures.backbones import trained_views
    from nnunet_vit_trainer.pictures.inputs import preprocessed
    from nnunet_vit_trainer.prediction.cases import find_cases
    from nnunet_vit_trainer.prediction.ensemble import folds_of

    folder = named_folder(arguments.results)
    plans, dataset = read_model(folder)
    asked = None if arguments.f is None else [arguments.f]
    name = arguments.chk or "checkpoint_final.pth"
    fold = folds_of(folder, asked, name)[0]
    inputs = [
        preprocessed(case.name, case.files, plans, dataset, arguments.slice)
        for case in find_cases(arguments.images, dataset["file_ending"])
    ]
    checkpoint = folder / f"fold_{fold}" / name
    views, said = trained_views(plans, dataset, checkpoint)
    return inputs, views, "; ".join(filter(None, (f"fold {fold}", said)))


def _by_config(arguments: argparse.Namespace) -> tuple[list["Input"], list["View"], str]:
    """Read images without a data set, and load the backbone of a config."""
    from nnunet_vit_trainer.config.reading import load_config
    from nnunet_vit_trainer.launch.backbones import find_backbone
    from nnunet_vit_trainer.pictures.backbones import plain_view
    from nnunet_vit_trainer.pictures.inputs import normalised
    from nnunet_vit_trainer.plans.derive import statistics_of
    from nnunet_vit_trainer.plans.input_norm import resolve_input_norm

    model = load_config(arguments.config).model
    for file in arguments.images:
        if not file.is_file():
            raise UserError(f"there is no image {file}")
    inputs = [normalised(file, arguments.slice) for file in arguments.images]
    schemes = inputs[0].schemes
    other = next((shown for shown in inputs if shown.schemes != schemes), None)
    if other is not None:
        raise UserError(
            f"{inputs[0].name} and {other.name} are not of one kind: {len(schemes)} and "
            f"{len(other.schemes)} channels, {schemes[0]} and {other.schemes[0]}"
        )
    backbone, weights = find_backbone(model, None)
    statistics: Any = statistics_of(backbone)
    norm, said = resolve_input_norm(model.input_norm, schemes, {}, backbone_statistics=statistics)
    view = plain_view(backbone, weights, norm, model.layer_indices, len(schemes), model.patch_size)
    return inputs, [view], f"input normalisation: {said}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_features_vit",
        example="nnUNetv2_features_vit imagesTs/a_0000.png --results RESULTS",
        about="Draw a backbone's patch features as colours beside images: by their three "
        "principal components, the first as brightness. With --results both as the backbone was "
        "and as it was trained, in the same colours.",
        read_on="docs/pictures.md",
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="files; with --results of its form")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--config", metavar="FILE_OR_NAME", help="draw this config's backbone")
    whose.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="draw the backbone of a trained model, <trainer>__<plans>__<configuration>",
    )
    add("-f", metavar="FOLD", help="of --results (default: the first that is there)")
    add("-chk", metavar="NAME", help="of --results (default: checkpoint_final.pth)")
    add("-o", type=Path, default=Path("features.png"), metavar="PNG", help="default: %(default)s")
    add("-slice", type=int, metavar="N", help="of volumes, from 1 (default: the middle one)")
    add("-device", default="cpu", choices=("cuda", "cpu", "mps"), help="default: %(default)s")
    return parser
