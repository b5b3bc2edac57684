"""A ViT's plan: plain numbers of tiles, objects, spacing and batch, and the memory of a step."""

import itertools
import math

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_vit_trainer.config.schema import ViTModelConfig, ViTnnUNetConfig, ViTTrainConfig
from nnunet_vit_trainer.planning.adapting import Adapter, adapted, fit
from nnunet_vit_trainer.planning.choice import FINEST, WIDE, Given, choose, resampled
from nnunet_vit_trainer.planning.memory import GIB, Line, build, countable, counter_of, line_of
from nnunet_vit_trainer.planning.objects import areas_in, classes_of, typical_width
from nnunet_vit_trainer.planning.reasons import reasons_of_choice
from nnunet_vit_trainer.planning.tiles import holds, largest_tile, padded, padding, wasted_tokens
from vit_backbone import UserError

SIDES = (1, 13, 14, 15, 28, 181, 217, 224, 250, 300.5, 511, 512, 640, 1500)
SHAPES = [*itertools.product(SIDES, SIDES)]
PLENTY = 1e12
NNUNETS = {"patch_size": [224, 192], "median_image_size_in_voxels": [217, 181]}


def given(image=(217, 181), patch=14, width=None, memory=PLENTY, pixels=1e9, **more):
    return Given(image, (patch, patch), width, memory, pixels, **more)


def nnunets_tile(image):
    """Plan as nnU-Net does where memory is no limit: its tile holds the image."""
    return get_pool_and_conv_props((1, 1), [math.ceil(side) for side in image], 4, 999999)[3]


@pytest.mark.parametrize("patch", [14, 16])
def test_no_plan_wastes_fewer_tokens_by_padding(patch):
    """Beside nnU-Net's own tile, and beside a smaller one of its that holds no whole image."""
    for image in SHAPES:
        choice = choose(given(image, patch))
        size = (patch, patch)
        assert padding(choice.tile, size) == 0
        assert wasted_tokens(choice.tile, image, size) == 0
        own = nnunets_tile(image)
        for theirs in (own, [max(side // 64 * 32, 8) for side in own]):
            assert padding(theirs, size) >= 0
            assert wasted_tokens(theirs, image, size) >= 0
        assert holds(own, image)
        assert math.prod(choice.tile) <= math.prod(padded(own, size))


def test_what_nnunets_tile_of_the_brain_pads():
    assert padding((224, 192), (14, 14)) == pytest.approx(196 / 192 - 1)
    assert wasted_tokens((224, 192), (217, 181), (14, 14)) == 16 * 14 - 16 * 13
    assert wasted_tokens((256, 256), (250, 250), (14, 14)) == 19**2 - 18**2


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("image", SHAPES[::5])
@pytest.mark.parametrize("memory", [1e4, 1e5, 1e6])
def test_a_tile_is_as_large_as_memory_and_image_allow(patch, image, memory):
    tile = largest_tile(image, (patch, patch), memory)
    whole = padded(image, (patch, patch))
    assert all(side % patch == 0 for side in tile)
    assert math.prod(tile) <= memory
    if tile != whole:  # one more patch on the side that was cut would be too many
        grown = [t + patch if t < w else t for t, w in zip(tile, whole, strict=True)]
        assert math.prod(grown) > memory
    assert all(side <= most for side, most in zip(tile, whole, strict=True))


def test_a_tile_keeps_the_shape_of_the_image():
    height, width = largest_tile((3000, 1000), (16, 16), 3e5)
    assert height / width == pytest.approx(3, rel=0.1)
    assert largest_tile((500, 500), (16, 16), 255) is None
    assert largest_tile((500, 20), (16, 16), 256) == (16, 16)


def test_wide_objects_keep_nnunets_spacing():
    choice = choose(given(width=WIDE * 14))
    assert (choice.factor, choice.side, choice.bound) == (1, 0, "width")
    assert choice.tile == (224, 182)
    assert choose(given(width=None)).factor == 1
    assert choose(given(width=WIDE * 14 / 1.05)).factor == 1  # not worth it


@pytest.mark.parametrize("patch", [14, 16])
def test_narrow_objects_get_finer_pixels(patch):
    image = (217, 181)
    choice = choose(given(image, patch, width=WIDE * patch / 1.5))
    assert choice.bound == "width"
    assert 1.5 <= choice.factor <= 1.5 + patch / 217
    assert choice.side % patch == 0
    assert resampled(image, choice.factor)[0] == choice.side == choice.tile[0]
    assert wasted_tokens(choice.tile, resampled(image, choice.factor), (patch, patch)) == 0


@pytest.mark.parametrize("image", [s for s in SHAPES if min(s) > 28])
def test_pixels_are_never_coarser_nor_finer_than_the_most(image):
    for width, memory in itertools.product((1, 20, 35, 400), (1e5, 1e6, PLENTY)):
        choice = choose(given(image, width=width, memory=memory))
        assert 1 <= choice.factor <= FINEST
        if choice.factor > 1:
            assert holds(choice.tile, resampled(image, choice.factor))
    assert choose(given(image, width=1)).bound == "finest"


def test_pixels_are_not_finer_than_a_tile_that_holds_the_image():
    image = (217, 181)
    plenty = choose(given(image, width=10))
    assert plenty.factor == pytest.approx(2, abs=0.07)
    tight = choose(given(image, width=10, memory=2 * math.prod(plenty.tile) - 1))
    assert 1 < tight.factor < plenty.factor
    assert tight.bound == "tile"
    least = choose(given(image, width=10, memory=2 * 224 * 182))
    assert (least.factor, least.tile, least.bound) == (1, (224, 182), "tile")
    less = choose(given(image, width=10, memory=2 * 224 * 182 - 1))
    assert less.factor == 1
    assert not holds(less.tile, image)


def test_the_batch_is_what_is_left_within_nnunets_rules():
    tile = 224 * 182
    assert choose(given(memory=12.5 * tile)).batch == 12
    assert choose(given(memory=12.5 * tile, pixels=100 * tile)).batch == 5
    assert choose(given(memory=12.5 * tile, pixels=10)).batch == 2
    finer = choose(given(width=21, pixels=100 * tile))
    assert finer.allowed == 5  # the data set has as many more pixels as its tiles have


def test_the_configs_tile_and_batch_are_kept():
    choice = choose(given(tile=(448, 448), memory=10 * 448 * 448, width=10))
    assert choice.tile == (448, 448)
    assert choice.batch == 10
    assert choice.factor == 434 / 217
    assert choose(given(tile=(224, 224), width=10)).factor == 1
    choice = choose(given(batch=20, memory=20 * 224 * 182, width=10))
    assert (choice.batch, choice.tile, choice.factor) == (20, (224, 182), 1)


def test_a_step_that_takes_more_than_the_line_says_gets_less():
    line = Line(100, 1)
    tried = []

    def count(batch, tile):
        tried.append((batch, tile))
        return 100 + int(1.15 * batch * math.prod(tile))

    memory = 100 + 30 * 224 * 182
    choice, peak = fit(given(memory=0), line, count, memory)
    assert peak == count(choice.batch, choice.tile) <= memory
    assert [batch for batch, _ in tried] == [30, 27, 24, 24]


@pytest.mark.parametrize("more", [{}, {"tile": (896, 896)}, {"batch": 500}])
def test_what_does_not_fit_is_refused(more):
    with pytest.raises(UserError, match="memory is not enough") as refused:
        fit(given(**more), Line(1e9, 1e4), lambda batch, tile: 10**12, 1.1e9)
    for key in more:
        assert {"tile": "train.patch_size", "batch": "train.batch_size"}[key] in str(refused.value)
    assert "1.0 GiB may be counted, 0.9 of them for the network" in str(refused.value)


@pytest.mark.parametrize("more", [{}, {"batch": 4}])
def test_memory_that_cuda_itself_takes_is_told(more):
    with pytest.raises(UserError, match=r"CUDA's own 1\.5 GiB leave nothing of it; give more"):
        fit(given(**more), Line(1e6, 1e4), lambda batch, tile: 10**12, countable(1.5 * GIB))


def test_reasons_fit_a_line_and_say_what_holds():
    own = {
        "spacing": [1.0, 1.0],
        "patch_size": [224, 192],
        "median_image_size_in_voxels": [217, 181],
    }
    asked = given(width=20, pixels=80 * 217 * 181)
    said = dict(reasons_of_choice(asked, choose(asked), {"a": 20, "b": 50}, own))
    assert said["objects"] == "a, smallest of 2 classes: 20 px, 1.4 patches of 14 px"
    assert said["spacing"].endswith("a patch more is over 2 times")
    assert "nnU-Net's 224 x 192: 2.1%, 16 tokens of 224" in said["padding"]
    assert max(map(len, said.values())) <= 72
    none = dict(reasons_of_choice(given(), choose(given()), {}, own))
    assert none["spacing"] == "1 x 1, nnU-Net's own; there are no objects to widen"


@pytest.mark.parametrize(
    ("image", "width", "factor", "bound"),
    [
        ((30, 34), 24.6, 64 / 34, "finest"),  # 5 patches are wanted, and more than 2 times
        ((12, 12), 5, 16 / 12, "finest"),
        ((15, 15), 30, 1, "finest"),  # one patch is hardly finer, two are too fine
        ((32, 32), 10, 2, "finest"),
        ((32, 32), 40, 48 / 32, "width"),
    ],
)
def test_what_keeps_pixels_from_being_finer_is_told(image, width, factor, bound):
    asked = given(image, 16, width)
    choice = choose(asked)
    assert (choice.factor, choice.bound) == (factor, bound)
    assert choose(given(image, 16, width, memory=2 * 32 * 48)).bound in (bound, "tile")


def test_a_class_in_no_mask_is_told():
    own = NNUNETS | {"spacing": [1.0, 1.0], "patch_size": [224, 192]}

    def count(batch, tile):
        return 10**6 + batch * math.prod(tile)

    for unseen in ([], ["b", "ü c"]):
        adapter = Adapter(ViTTrainConfig(), (14, 14), {"a": 30}, count, 8 * GIB, "given", unseen)
        adapter(own, 1e9)
        told = dict(adapter.reasons).get("unseen")
        said = "b, ü c: no whole object in the masks that were looked at"
        assert told == (said if unseen else None)


def test_data_of_another_spacing_have_another_name():
    own = {
        "spacing": [1.0, 0.5],
        "patch_size": [224, 192],
        "median_image_size_in_voxels": [217, 181],
    }
    kept = adapted(own, choose(given()))
    assert kept["data_identifier"] == "nnUNetPlans_2d"
    assert kept["spacing"] == [1.0, 0.5]
    finer = choose(given(width=28))
    changed = adapted(own, finer)
    assert changed["data_identifier"] == f"nnUNetPlans_2d_{finer.side}px"
    assert changed["spacing"] == [1 / finer.factor, 0.5 / finer.factor]
    assert changed["patch_size"] == list(finer.tile)


def test_objects_are_what_hangs_together_in_a_slice():
    mask = np.zeros((3, 12, 12), int)
    mask[:, 1:5, 1:5] = 1  # the same in each slice: three objects
    mask[0, 5, 5] = 1  # by the corner
    mask[1, 8:10, 8:10] = 2
    assert sorted(areas_in(mask, [1])) == [16, 16, 17]
    assert areas_in(mask, [1, 2]).tolist() == [17, 16, 4, 16]
    assert areas_in(mask, [3]).size == 0


def test_objects_that_ignored_pixels_cut_have_no_say():
    mask = np.zeros((2, 12, 12), int)
    mask[:, 1:5, 1:5] = 1
    mask[:, 8:11, 8:11] = 1
    mask[0, 5] = 3  # below the first of them, in one slice of two
    mask[1, 11, 11] = 3  # by the corner of the other
    assert sorted(areas_in(mask, [1])) == [9, 9, 16, 16]
    assert sorted(areas_in(mask, [1], ignore=3)) == [9, 16]
    mask[:, ::2] = 3
    assert areas_in(mask, [1], ignore=3).size == 0


def test_of_many_slices_some_are_looked_at():
    assert len(areas_in(np.ones((100, 4, 4)), [1])) == 16


def test_specks_do_not_make_a_class_small():
    assert typical_width([1] * 100 + [400] * 10) == pytest.approx(2 * math.sqrt(400 / math.pi))
    assert typical_width([]) is None


def test_regions_are_classes_and_what_is_ignored_is_none():
    labels = {"background": 0, "whole": [1, 2], "core": [2], "rim": 1, "ignore": 3}
    assert classes_of(labels) == {"whole": [1, 2], "core": [2], "rim": [1]}


def counted_of(labels, **train):
    """Build a tiny network, and return it and what counts its step."""
    config = ViTnnUNetConfig(
        model=ViTModelConfig(model_path="linear", backbone="test_vit", pretrained=False),
        train=ViTTrainConfig(**train),
    )
    manager = LabelManager({"background": 0, **labels}, [1, 2])
    network = build(config, 1, manager.num_segmentation_heads)
    return network, counter_of(network, config, manager, 1)


def test_what_a_step_takes_is_a_line_by_the_pixels_of_a_batch():
    network, count = counted_of({"a": 1}, grad_checkpointing=True)
    line = line_of(count, (16, 16))
    expected = line.fixed + line.per_pixel * 7 * 640 * 320
    assert count(7, (640, 320)) == pytest.approx(expected, rel=0.02)
    assert all(parameter.is_meta for parameter in network.parameters())


def test_what_is_held_beside_a_step_counts():
    """Of regions, with an average of the weights and the gradients of an earlier batch."""
    labels, tile = {"a": [1, 2], "b": [2]}, (64, 64)
    _, plain = counted_of(labels)
    network, more = counted_of(labels, ema=0.9, accumulate_steps=2)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert more(2, tile) - plain(2, tile) == 2 * 4 * trained


class Weighted(nn.Module):
    """A stranger's head that holds a tensor which is no buffer."""

    def __init__(self, head, device):
        super().__init__()
        self.head = head
        self.weights = torch.ones(2, 1, 1, device=device)

    def forward(self, features, image):
        return self.head(features, image) * self.weights


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_strangers_head_with_a_plain_tensor_is_counted(device):
    network, count = counted_of({"a": 1})
    before = count(2, (32, 32))
    network.head = Weighted(network.head, device)
    assert count(2, (32, 32)) >= before


def test_a_gpu_has_less_to_count_than_it_has():
    assert countable(8 * GIB) == pytest.approx(6.5 / 1.25 * GIB)
    assert countable(1 * GIB) == 0
