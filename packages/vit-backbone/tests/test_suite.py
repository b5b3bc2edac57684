"""The suite for heads fails for the heads it is there to catch: each fault is planted once."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vit_backbone.heads.linear_head import LinearHead
from vit_backbone.testing import HeadConformance


class Unused(LinearHead):
    def __init__(self, *args):
        super().__init__(*args)
        self.idle = nn.Linear(2, 2)


class InFloat32(LinearHead):
    def forward(self, features, image):
        return super().forward(features, image).float()


class Random(LinearHead):
    def forward(self, features, image):
        return F.dropout2d(super().forward(features, image), 0.5, training=True)


class Branching(LinearHead):
    def forward(self, features, image):
        logits = super().forward(features, image)
        return logits if logits.sum() > 0 else logits + 1


class OneSize(LinearHead):
    """It remembers the first grid it saw as a number, as timm's RoPE of DINOv3 does."""

    def forward(self, features, image):
        return super().forward(features, image) / float(features[0].shape[-1])


class Zooming(LinearHead):
    def forward(self, features, image):
        logits = F.interpolate(super().forward(features, image), image.shape[-2:])
        return F.interpolate(logits, scale_factor=1.2)[..., : image.shape[2], : image.shape[3]]


class BehindAGate(LinearHead):
    """It begins as the linear head; what it learns to add lies half a tile beside the image."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gate = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.zeros_(self.gate.weight)

    def forward(self, features, image):
        logits = F.interpolate(super().forward(features, image), image.shape[-2:])
        return logits + 100 * self.gate(image).roll(image.shape[-1] // 2, -1)


class Overflowing(LinearHead):
    def forward(self, features, image):
        return (super().forward(features, image) + 60000).to(torch.float16).exp()


class Auxiliary(LinearHead):
    """It claims two outputs; the second has no parameter, and the first is the coarser one."""

    deep_supervision = False
    deep_supervision_scales = (1.0, 0.5)

    def forward(self, features, image):
        logits = super().forward(features, image)
        return [logits * 2, logits] if self.deep_supervision else logits


class OnTheCpu(LinearHead):
    def forward(self, features, image):
        logits = super().forward(features, image)
        return logits + torch.zeros(logits.shape[-1])


class WithAConstant(LinearHead):
    """Its constant is no buffer, so it stays where it was made."""

    def __init__(self, *args):
        super().__init__(*args)
        self.constant = torch.zeros(3, 1, 1)

    def forward(self, features, image):
        return super().forward(features, image) + self.constant


class NamingItsSize(LinearHead):
    """A size in a text is a constant to torch.compile."""

    def forward(self, features, image):
        torch._assert(image.shape[-1] > 0, f"an image of width {image.shape[-1]}")
        return super().forward(features, image)


class Initialising(LinearHead):
    def initialize(self):
        pass


@pytest.fixture(scope="module")
def two_threads():
    """What a stranger's tests may compute in; ours do in one (conftest.py)."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
class TestOneThread:
    one_thread = HeadConformance.one_thread

    def test_results_are_compared_bit_for_bit_in_one_thread(self):
        assert torch.get_num_threads() == 1


def suite_of(head, deep_head=None, factory=None):
    suite = HeadConformance()
    suite.make_head = head
    suite.make_deep_head = deep_head or (lambda *args: None)
    suite.find_factory = lambda: factory
    return suite


def claiming(backbone_name="x", *, auxiliary_outputs=False):
    """Stand for a factory that takes auxiliary outputs, in a module that names no strides."""


FAULTS = [
    (Unused, "test_ddp_finds_no_unused_parameter", [False], RuntimeError),
    (Unused, "test_every_trainable_parameter_gets_a_gradient", [], AssertionError),
    (InFloat32, "test_the_dtype_is_kept", [torch.bfloat16], AssertionError),
    (Random, "test_evaluation_is_deterministic", [], AssertionError),
    (Branching, "test_torch_compile_equals_eager", [], Exception),
    (NamingItsSize, "test_torch_compile_of_any_size_equals_eager", [], AssertionError),
    (Branching, "test_torch_export_equals_eager", [], Exception),
    (OneSize, "test_torch_export_equals_eager", [], AssertionError),
    (Zooming, "test_output_lies_where_the_input_lies", [16], AssertionError),
    (BehindAGate, "test_output_lies_where_the_input_lies", [16], AssertionError),
    (Overflowing, "test_bfloat16_autocast_is_finite", [], AssertionError),
    (OnTheCpu, "test_everything_is_on_the_cuda_device", [torch.float16], RuntimeError),
    (WithAConstant, "test_everything_is_on_the_cuda_device", [torch.float16], AssertionError),
    (Initialising, "test_nnunet_finds_no_initialize_and_its_seg_layers", [], AssertionError),
    (Auxiliary, "test_deep_supervision_is_claimed_or_refused", [], AssertionError),
]


@pytest.mark.parametrize(("head", "test", "arguments", "error"), FAULTS)
def test_a_fault_is_caught(head, test, arguments, error):
    getattr(suite_of(LinearHead), test)(*arguments)
    with pytest.raises(error):
        getattr(suite_of(head), test)(*arguments)


def test_deep_supervision_whose_first_output_is_not_the_prediction_is_caught():
    suite = suite_of(LinearHead, Auxiliary)
    with pytest.raises(AssertionError):
        suite.test_deep_supervision_gives_nnunets_sizes_finest_first((32, 48))


def test_a_factory_that_claims_what_its_head_lacks_is_caught():
    with pytest.raises(AssertionError):
        suite_of(LinearHead, factory=claiming).test_deep_supervision_is_claimed_or_refused()
    with pytest.raises(AssertionError):
        suite_of(LinearHead, Auxiliary, claiming).test_deep_supervision_is_claimed_or_refused()
