"""A probe from the data set to its table, its picture and a config."""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.config.names import DEFAULT_PLANS
from nnunet_vit_trainer.launch.backbones import find_backbone
from nnunet_vit_trainer.launch.checks import check_device
from nnunet_vit_trainer.pictures.features import FeatureRow, Features, draw_features
from nnunet_vit_trainer.pictures.tones import are_colours, to_rgb
from vit_backbone import UserError, WeightsError, reason_of, shorten
from vit_backbone.weights.once import reading_once

from .candidates import Candidate
from .data import Data, read_data
from .patches.tokens import Tokens
from .table import Row, as_data, ranked
from .trials import Choices, Found, try_backbone
from .winner import write_config

TABLE, PICTURE = "probe.json", "features.png"
_SHOWN_TILES, _SHOWN_BACKBONES, _LONGEST_TITLE = 3, 4, 17


@dataclass
class Probed:
    """What a probe found.

    Attributes:
        data: that it was made on.
        rows: the best first.
        notes: what to know of it.
        looks: name of a row's backbone, patch size and normalisation -> features of some tiles.
    """

    data: Data
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    looks: dict[tuple[Any, ...], list[Features]] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "dataset": self.data.dataset,
            "configuration": self.data.configuration,
            "classes": [*self.data.positions],
            "tiles": len(self.data.tiles),
            "folds": len(self.data.folds),
            "notes": self.notes,
            "rows": [as_data(row, rank) for rank, row in enumerate(self.rows, start=1)],
        }


def probe(
    name_or_id: str | int,
    candidates: Sequence[Candidate],
    choices: Choices,
    *,
    configuration: str = "2d",
    plans_name: str = DEFAULT_PLANS,
    tiles: int = 100,
    with_random: bool = False,
    on_progress: Callable[[str], None] = lambda said: None,
) -> Probed:
    """Probe backbones on a preprocessed data set.

    Args:
        name_or_id: of the data set.
        candidates: the backbones.
        choices: what is tried of each.
        configuration: a 2D one of the plans.
        plans_name: of the data set's own plans.
        tiles: the most that are looked at.
        with_random: try each architecture with random weights, too.
        on_progress: called with what is done now.

    Raises:
        UserError: a data set that is not preprocessed or cannot be cross-validated, or a device
            that is not there. A backbone that cannot be tried is a row that says why.
    """
    check_device(choices.device, 1)
    cases = itertools.count(1)
    data = read_data(
        name_or_id,
        configuration,
        plans_name,
        tiles,
        choices.seed,
        lambda: on_progress(f"case {next(cases)}"),
    )
    probed = Probed(data, notes=list(data.notes))
    shown = _shown(data)
    rows: list[Row] = []
    with reading_once():
        for found in _found(candidates, with_random, rows, probed.notes):

            def keep(row: Row, tokens: Tokens) -> None:
                probed.looks[_look_of(row)] = [_features(row, tokens, data, i) for i in shown]

            count = _counter(f"{found.candidate.name}: tile", len(data.tiles), on_progress)
            for row in try_backbone(found, choices, data, keep, count):
                rows.append(row)
                on_progress(f"{row.name}: {row.taps or 'failed'}")
    probed.rows = ranked(rows)
    return probed


def write(probed: Probed, folder: Path) -> list[Path]:
    """Write the table, and of the best rows a picture and a config; return the files.

    Where nothing could be tried, an earlier table and what belongs to it stay as they are.

    Args:
        probed: see `probe`; a note is added where a config was there, or nothing is written.
        folder: to write into; it is made where it is not there.

    Raises:
        UserError: what the disk says.
    """
    files = []
    scored = any(row.scores for row in probed.rows)
    if not scored and os.path.lexists(folder / TABLE):
        probed.notes.append(f"nothing is written: {folder / TABLE} of an earlier probe stays")
        return []
    try:
        folder.mkdir(exist_ok=True)
        if scored:
            best = probed.rows[0]
            data = probed.data
            of = (data.dataset, data.configuration, data.plans_name)
            config, note = write_config(best, *of, folder)
            probed.notes += [note] if note else []
            files = [config, folder / PICTURE]
        # Before the picture: one that lies alone is taken for somebody's.
        with written_whole(folder / TABLE) as unfinished:
            unfinished.write_text(json.dumps(probed.content(), indent=1) + "\n", encoding="utf-8")
        if scored:
            with written_whole(folder / PICTURE) as unfinished:
                unfinished.write_bytes(draw(probed))
    except OSError as error:
        raise UserError(f"not written: {reason_of(error)}") from error
    return [folder / TABLE, *files]


def draw(probed: Probed) -> bytes:
    """Draw what the best backbones see in some tiles, each by components of its own: a PNG."""
    best = [row for row in probed.rows if row.scores]
    looks = list(dict.fromkeys(map(_look_of, best)))[:_SHOWN_BACKBONES]
    rows = []
    for number, i in enumerate(_shown(probed.data)):
        tile = probed.data.tiles[i]
        colours = are_colours(probed.data.channels)
        image = to_rgb(tile.image[:3] if colours else tile.image[probed.data.shown :][:1])
        rows.append(
            FeatureRow(tile.name, image, [probed.looks[k][number] for k in looks], tile.aspect)
        )
    titles = [f"{shorten(name, _LONGEST_TITLE)} p{patch}" for name, patch, _ in looks]
    return draw_features(rows, titles, "each backbone's own; last block", apart=True)


def _found(
    candidates: Sequence[Candidate], with_random: bool, rows: list[Row], notes: list[str]
) -> Iterator[Found]:
    """Find the backbones one by one; what cannot be tried is added to the rows, or noted."""
    waiting, seen = list(candidates), {}
    while waiting:
        candidate = waiting.pop(0)
        try:
            model = candidate.model()
            backbone, weights = find_backbone(model, None)
        except UserError as error:
            failed = reason_of(error, 400)
            if candidate.backbone and isinstance(error, WeightsError):
                failed += f" (here: {candidate.name}=FILE)" if candidate.file is None else ""
                if with_random:  # the weights are missing, and the ViT is known
                    waiting.append(candidate.without_weights(candidate.model()))
            rows.append(Row(candidate.name, None, "", "", {}, failed=failed))
            continue
        key = (backbone["name"], weights["sha256"] if weights else None)
        if key in seen:
            if weights:
                notes.append(f"{candidate.name}: the same weights as {seen[key]}, tried once")
            continue
        seen[key] = candidate.name
        yield Found(candidate, model, backbone, weights)
        if with_random and weights:
            waiting.append(candidate.without_weights(model))


def _look_of(row: Row) -> tuple[Any, ...]:
    return row.name, row.patch, row.input_norm


def _shown(data: Data) -> list[int]:
    """Choose tiles to show: spread over those of different cases with the most labels."""
    labels = [len(np.unique(tile.labels)) for tile in data.tiles]
    best_of = {data.tiles[i].case: int(i) for i in np.argsort(labels, kind="stable")}
    most = sorted(best_of.values(), key=lambda i: -labels[i])
    best = [i for i in most if labels[i] == labels[most[0]]]
    chosen = sorted(best if len(best) >= _SHOWN_TILES else most[:_SHOWN_TILES])
    return [chosen[int(i)] for i in np.linspace(0, len(chosen) - 1, min(_SHOWN_TILES, len(chosen)))]


def _features(row: Row, tokens: Tokens, data: Data, tile: int) -> Features:
    found = torch.from_numpy(tokens.tokens[tile][:, :, -1]).float()
    sides = zip(data.tiles[tile].labels.shape, found.shape[:2], strict=True)
    height, width = (pixels / (patches * (row.patch or 1)) for pixels, patches in sides)
    return Features(found, (height, width))


def _counter(what: str, total: int, on_progress: Callable[[str], None]) -> Callable[[], None]:
    done = itertools.count()
    return lambda: on_progress(f"{what} {next(done) % total + 1} of {total}")
