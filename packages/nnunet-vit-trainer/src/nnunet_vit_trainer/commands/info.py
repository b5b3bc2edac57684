# PYTHON_ARGCOMPLETE_OK
"""The command that says what a model is."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vit_backbone import UserError

from .errors import one_line_errors
from .parser import CommandParser

if TYPE_CHECKING:
    from nnunet_vit_trainer.results.card.schema import ModelCard


@one_line_errors
def info() -> None:
    """``nnUNetv2_info_vit``: what a trained model, an export or a config is."""
    arguments = _parser().parse_args()
    card = _card(arguments.what)
    if arguments.json:
        print(card.model_dump_json(indent=2))
        return
    _print(card)


def _card(what: Path) -> "ModelCard":
    if os.path.isdir(what):  # noqa: PTH112 - Path's raises for a name that is too long
        from nnunet_vit_trainer.results.card.folder import card_of_folder

        return card_of_folder(what)
    if what.suffix.lower() == ".zip":
        from nnunet_vit_trainer.sharing.look import card_of_zip

        return card_of_zip(what)
    if what.suffix.lower() == ".onnx" and os.path.isfile(what):
        raise UserError(
            f"{what} is an ONNX file: what is in it stands in its metadata under 'nnunet_vit' "
            "(docs/serving.md); give the model's folder or zip"
        )
    from nnunet_vit_trainer.results.card.config import card_of_config

    return card_of_config(what)


def _print(card: "ModelCard") -> None:
    """Print a card, at most 80 columns wide, but commands, which are to be copied, as they are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from nnunet_vit_trainer.results.card.page import facts_of

    console = Console(highlight=False)
    console.width = min(console.width, 80)
    console.print(Text(f"{card.name} ({card.kind})", style="bold"), "\n")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in facts_of(card):
        facts.add_row(Text(name), Text(value))
    console.print(facts)
    for note in card.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    if not card.predict:
        return
    print("\nTrain:" if card.kind == "config" else "\nPredict:")
    for command in card.predict:
        print(f"  {command}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "nnUNetv2_info_vit",
        example="nnUNetv2_info_vit model.zip",
        about="Say what a model is: backbone, weights and their licence, head, data, Dice, "
        "versions, and how to predict with it. A checkpoint is never opened, so a stranger's zip "
        "may be looked at.",
        read_on="docs/compare.md",
    )
    parser.add_argument(
        "what",
        type=Path,
        metavar="WHAT",
        help="a trained model's folder, an export (.zip), a config file or a shipped config's name",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, of a stable schema")
    return parser
