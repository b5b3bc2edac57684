"""Try one backbone: in each patch size, under each input normalisation, by each choice of taps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from nnunet_vit_trainer.config.schema import ViTModelConfig
from nnunet_vit_trainer.pictures.backbones import View, plain_view
from nnunet_vit_trainer.plans.derive import statistics_of
from nnunet_vit_trainer.plans.input_norm import resolve_input_norm
from vit_backbone import UserError, reason_of, resolve_taps

from .candidates import Candidate
from .crossing.validate import cross_validate
from .data import Data
from .patches.tokens import Tokens, tokens_of
from .table import MODEL_KEYS, Row
from .taps import FOUR, LAST, layer_indices_of

_FAILURES = (UserError, RuntimeError, MemoryError)  # torch's own, such as a full GPU


@dataclass(frozen=True)
class Choices:
    """What is tried of each backbone.

    Attributes:
        taps: ``last``, ``four`` (the last block of each quarter), the name of a preset, or four
            blocks with commas between them.
        patch_sizes: in pixels; ``None`` is the backbone's own.
        input_norms: as in a config.
        device: to compute on.
        seed: of random weights and of the patches that are drawn.
    """

    taps: Sequence[str] = (LAST, FOUR)
    patch_sizes: Sequence[int | None] = (None,)
    input_norms: Sequence[str] = ("auto", "none")
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """A backbone as it was found.

    Attributes:
        candidate: what was asked for.
        model: the config's section.
        backbone: see `find_backbone`, like the next.
        weights: see there.
    """

    candidate: Candidate
    model: ViTModelConfig
    backbone: dict[str, Any]
    weights: dict[str, Any] | None


def try_backbone(
    found: Found,
    choices: Choices,
    data: Data,
    on_view: Callable[[Row, Tokens], None],
    on_tile: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Yield a row for each choice; one that cannot be tried says why, and the others go on.

    Choices that come to the same, such as a patch size that is the backbone's own, are tried once.

    Args:
        found: the backbone.
        choices: see there.
        data: to try it on.
        on_view: called with the first row and the tokens of each patch size and normalisation.
        on_tile: called after each tile.
    """
    tried: list[Any] = []
    for patch_size in choices.patch_sizes:
        for choice in choices.input_norms:
            row = _row(found, patch_size, choice)
            try:
                norm, said = _input_norm(found, choice, data)
                view = _view(found, norm, patch_size, len(data.schemes), choices.seed)
                if (_side_of(view), norm) in tried:  # it is what another choice is
                    continue
                tried.append((_side_of(view), norm))
                rows, tokens = _try_view(row, view, said, choices, data, on_tile)
            except _FAILURES as error:
                yield replace(row, failed=reason_of(error))
                continue
            on_view(rows[0], tokens)
            yield from rows


def _try_view(
    row: Row,
    view: View,
    said: str,
    choices: Choices,
    data: Data,
    on_tile: Callable[[], None],
) -> tuple[list[Row], Tokens]:
    """Take the tokens behind all blocks that are tapped, and probe each choice of taps."""
    depth = len(view.backbone.blocks)
    blocks_of, failed = _blocks_of(choices.taps, depth)
    blocks = sorted({block for some in blocks_of.values() for block in some} | {depth - 1})
    tokens = tokens_of(view.backbone, view.input_norm, data.tiles, blocks, choices.device, on_tile)
    side = _side_of(view)
    rows = []
    for taps, tapped in blocks_of.items():
        at = [blocks.index(block) for block in tapped]
        features = [of[:, :, at].reshape(*of.shape[:2], -1) for of in tokens.tokens]
        scores = cross_validate(
            features, data.tiles, side, data.folds, data.counted, data.positions, data.labels,
            choices.seed,
        )  # fmt: skip
        reached = replace(
            row,
            patch=side,
            taps=taps,
            model=row.model | {"layer_indices": layer_indices_of(taps)},
            blocks=tapped,
            embed_dim=tokens.tokens[0].shape[-1],
            input_norm_said=said,
            seconds=tokens.seconds,
            scores=scores,
        )
        rows.append(reached)
    rows += [replace(row, patch=side, taps=t, failed=why) for t, why in failed.items()]
    return rows, tokens


def _blocks_of(choices: Sequence[str], depth: int) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the blocks of each choice of taps, those that are the same once; and what fails."""
    blocks: dict[str, list[int]] = {}
    failed = {}
    for taps in choices:
        try:
            wanted = resolve_taps(layer_indices_of(taps), depth)
        except UserError as error:
            failed[taps] = reason_of(error)
            continue
        different = [*dict.fromkeys(i % depth for i in wanted)]
        if different not in blocks.values():
            blocks[taps] = different
    return blocks, failed


def _row(found: Found, patch_size: int | None, choice: str) -> Row:
    model = asdict(found.model) | {"patch_size": patch_size, "input_norm": choice}
    model = {key: model[key] for key in MODEL_KEYS}
    return Row(
        found.candidate.name,
        patch_size,
        "",
        choice,
        model,
        sha256=found.weights["sha256"] if found.weights else "",
    )


def _input_norm(found: Found, choice: str, data: Data) -> tuple[dict[str, list[float]] | None, str]:
    statistics = statistics_of(found.backbone)
    return resolve_input_norm(
        choice, data.schemes, data.intensities, backbone_statistics=statistics
    )


def _view(
    found: Found, norm: dict[str, Any] | None, patch_size: int | None, channels: int, seed: int
) -> View:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return plain_view(found.backbone, found.weights, norm, [-1], channels, patch_size)


def _side_of(view: View) -> int:
    return view.backbone.patch_embed.patch_size[0]
