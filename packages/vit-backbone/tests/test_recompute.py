"""Which parts of a head keep less: those that say so, and a head without any is named."""

import pytest
import torch
from torch import nn

from vit_backbone import UserError
from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.heads.recompute import recomputed, set_recompute


class Foreign(nn.Module):
    """Somebody's layer with a method of that name."""

    def recompute(self):
        return 1


def test_the_stem_is_set_and_a_foreign_method_is_left_alone():
    head = LinearHead(8, 2, image_stem=True)
    head.foreign = Foreign()
    set_recompute(head)
    assert head.image_stem.recompute is True
    assert head.foreign.recompute() == 1


def test_a_head_that_keeps_nothing_is_named():
    head = LinearHead(8, 2)
    head.foreign = Foreign()
    with pytest.raises(UserError, match="head 'linear' keeps nothing that it could compute anew"):
        set_recompute(head, "head 'linear'")


def test_without_gradients_a_block_runs_as_it_is():
    block, x = nn.Conv2d(2, 2, 1), torch.randn(1, 2, 3, 3)
    with torch.no_grad():
        assert torch.equal(recomputed(block, x), block(x))
