"""The suite that heads inherit.

::

    from vit_backbone.testing import HeadConformance
    from my_head import MyHead

    class TestMyHead(HeadConformance):
        def make_head(self, embed_dim, num_classes):
            return MyHead(embed_dim, num_classes)

pytest is needed here and nowhere else in the package.
"""

import inspect
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn.parallel import DistributedDataParallel

from vit_backbone.heads.finding import deep_supervision_strides
from vit_backbone.segmentation.model import Head, ViTSegmentationModel

from .fake_cuda import run_on_fake_cuda
from .tools import (
    CountingCompiler,
    FakeBackbone,
    one_process_group,
    parameters_without_gradient,
    response_center,
    wake,
)

# A size of whole patches, ones that need padding on either side, one below a patch, a line.
SIZES = ((32, 48), (33, 50), (97, 31), (5, 7), (1, 40))


class HeadConformance:
    """What every head keeps, whatever it does inside. Inherit it and define `make_head`."""

    num_classes = 3
    embed_dim = 8

    @pytest.fixture(autouse=True)
    def one_thread(self) -> Iterator[None]:
        """Compute in one thread: how more share the work, and so rounding, depends on the load."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    def make_head(self, embed_dim: int, num_classes: int) -> nn.Module:
        """Build the head under test, small, for four taps of ``embed_dim`` channels.

        Raises:
            AttributeError: the subclass forgot it.
        """
        raise AttributeError("define make_head(embed_dim, num_classes) in the subclass")

    def make_deep_head(self, embed_dim: int, num_classes: int) -> nn.Module | None:
        """Build the head with its auxiliary outputs; ``None`` for a head that has none."""
        return None

    def find_factory(self) -> Callable[..., Any] | None:
        """Return the ``create_segmentation_model`` that builds the head; ``None`` to leave it."""
        return None

    def make_model(self, patch_size: int = 16) -> ViTSegmentationModel:
        """Join the head under test and a fake backbone, in evaluation mode, with fixed weights.

        What begins at zero is woken: nothing behind a closed gate would be tested.
        """
        torch.manual_seed(0)
        head = self.make_head(self.embed_dim, self.num_classes)
        wake(head)
        return ViTSegmentationModel(FakeBackbone(self.embed_dim, patch_size), head).eval()

    def make_deep_model(self) -> ViTSegmentationModel:
        """Do the same with deep supervision on, or skip the test of a head that has none."""
        torch.manual_seed(0)
        head = self.make_deep_head(self.embed_dim, self.num_classes)
        if head is None:
            pytest.skip("this head claims no deep supervision")
        wake(head)
        model = ViTSegmentationModel(FakeBackbone(self.embed_dim), head).eval()
        model.head.deep_supervision = True
        return model

    @pytest.mark.parametrize("patch_size", [14, 16])
    @pytest.mark.parametrize("size", SIZES)
    def test_any_size_in_the_same_size_out(self, size: tuple[int, int], patch_size: int) -> None:
        logits = self.make_model(patch_size)(torch.randn(2, 3, *size))
        assert logits.shape == (2, self.num_classes, *size)
        assert logits.isfinite().all()

    @pytest.mark.parametrize("patch_size", [14, 16])
    def test_output_lies_where_the_input_lies(self, patch_size: int) -> None:
        """A bump in the image moves the logits there, not 14 % beside it."""
        model = self.make_model(patch_size)
        for y, x in ((40, 40), (190, 60), (100, 200)):
            center = response_center(model, (250, 260), (y, x))
            assert max(abs(center[0] - y), abs(center[1] - x)) < patch_size / 2 + 2, (y, x, center)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    def test_the_dtype_is_kept(self, dtype: torch.dtype) -> None:
        """Of the head's own answer, before the model gives it the image's dtype."""
        model = self.make_model().to(dtype)
        taps = [torch.randn(2, self.embed_dim, 2, 3, dtype=dtype) for _ in range(4)]
        assert model.head(taps, torch.randn(2, 3, 32, 48, dtype=dtype)).dtype == dtype
        assert model(torch.randn(2, 3, 33, 50, dtype=dtype)).dtype == dtype

    def test_every_trainable_parameter_gets_a_gradient(self) -> None:
        model = self.make_model().train()
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        assert not parameters_without_gradient(model)

    def test_evaluation_is_deterministic(self) -> None:
        model, image = self.make_model(), torch.randn(1, 3, 40, 40)
        assert torch.equal(model(image), model(image))

    def test_state_dict_goes_round(self) -> None:
        model, image = self.make_model(), torch.randn(1, 3, 40, 40)
        torch.manual_seed(1)
        other = ViTSegmentationModel(
            FakeBackbone(self.embed_dim), self.make_head(self.embed_dim, self.num_classes)
        ).eval()
        assert not torch.equal(model(image), other(image))
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(image), other(image))

    def test_bfloat16_autocast_is_finite(self) -> None:
        model = self.make_model().train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.randn(2, 3, 48, 48))
        logits.float().square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert logits.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_everything_is_on_the_cuda_device(self, dtype: torch.dtype) -> None:
        """A CUDA run under autocast, of fake tensors."""
        logits = run_on_fake_cuda(self.make_model(), (2, 3, 33, 50), dtype)
        assert isinstance(logits, torch.Tensor)
        assert (logits.device.type, logits.dtype) == ("cuda", torch.float32)
        assert logits.shape == (2, self.num_classes, 33, 50)

    def test_torch_compile_equals_eager(self) -> None:
        """In one graph, values and gradients.

        The backend is aot_eager: what the tracers (dynamo, AOTAutograd) make of the head. Code
        generation is inductor's affair, which needs a compiler and minutes on a CPU.
        """
        torch.compiler.reset()
        model, image = self.make_model(), torch.randn(2, 3, 33, 50)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        expected, got = model(image), compiled(image)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        parameters = list(model.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(got.square().mean(), parameters),
            torch.autograd.grad(expected.square().mean(), parameters),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_torch_compile_of_any_size_equals_eager(self) -> None:
        """Once both sides were seen to vary, nothing is compiled for a further size."""
        model, counting = self.make_model(), CountingCompiler()
        torch.compiler.reset()
        compiled = torch.compile(model, backend=counting, fullgraph=True)
        with torch.no_grad():
            for rows, columns in ((32, 48), (64, 48), (64, 80)):
                compiled(torch.randn(2, 3, rows, columns))
            graphs = counting.graphs
            for rows, columns in ((96, 64), (48, 112)):
                image = torch.randn(2, 3, rows, columns)
                torch.testing.assert_close(compiled(image), model(image), rtol=1e-5, atol=1e-5)
        assert counting.graphs == graphs

    def test_torch_export_equals_eager(self) -> None:
        """One program for any batch and any size in whole patches, here of 14 pixels.

        From 3 patches on, so that halving the grid gives no side of 1, which torch specialises.
        """
        model, image = self.make_model(14), torch.randn(2, 3, 42, 56)
        sizes = {0: Dim("batch"), 2: 14 * Dim("rows"), 3: 14 * Dim("columns")}
        exported = torch.export.export(model, (image,), dynamic_shapes=(sizes,), strict=False)
        for shape in ((2, 3, 42, 56), (3, 3, 70, 42), (1, 3, 84, 84)):
            image = torch.randn(shape)
            got, expected = exported.module()(image), model(image)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("deep_supervision", [False, True])
    def test_ddp_finds_no_unused_parameter(self, deep_supervision: bool) -> None:
        """Two steps, wrapped as nnU-Net does: DDP complains of the first in the second."""
        model = (self.make_deep_model() if deep_supervision else self.make_model()).train()
        with one_process_group():
            parallel = DistributedDataParallel(model)
            for _ in range(2):
                outputs = parallel(torch.randn(2, 3, 32, 48))
                outputs = outputs if deep_supervision else [outputs]
                sum(output.square().mean() for output in outputs).backward()

    @pytest.mark.parametrize("size", [(32, 48), (33, 50), (97, 31)])
    def test_deep_supervision_gives_nnunets_sizes_finest_first(self, size: tuple[int, int]) -> None:
        model, image = self.make_deep_model(), torch.randn(2, 3, *size)
        outputs = model(image)
        scales = model.head.deep_supervision_scales
        assert len(outputs) > 1
        assert [tuple(output.shape[-2:]) for output in outputs] == [
            tuple(max(1, round(side * scale)) for side in size) for scale in scales
        ]
        sum(output.square().mean() for output in outputs).backward()
        assert not parameters_without_gradient(model)
        model.head.deep_supervision = False
        assert torch.equal(model(image), outputs[0])

    def test_deep_supervision_is_claimed_or_refused(self) -> None:
        """The trainer refuses a head whose module names no strides; both must say the same."""
        plain = self.make_head(self.embed_dim, self.num_classes)
        assert len(getattr(plain, "deep_supervision_scales", (1.0,))) == 1
        assert not getattr(plain, "deep_supervision", False)
        deep, factory = self.make_deep_head(self.embed_dim, self.num_classes), self.find_factory()
        if factory is None:
            return
        strides = deep_supervision_strides(factory)
        assert (strides is None) == (deep is None)
        assert ("auxiliary_outputs" in inspect.signature(factory).parameters) == bool(strides)
        if strides is not None and deep is not None:
            scales = cast("Head", deep).deep_supervision_scales  # claimed is had
            steps = accumulate(strides, lambda scale, stride: scale / stride, initial=1.0)
            assert list(scales) == list(steps)[1:]

    def test_nnunet_finds_no_initialize_and_its_seg_layers(self) -> None:
        """nnU-Net applies any ``initialize``, and skips only ``.seg_layers.`` when fine-tuning."""
        model = self.make_model()
        assert not [n for n, module in model.named_modules() if hasattr(module, "initialize")]
        classifiers = [n for n, p in model.named_parameters() if ".seg_layers." in n]
        assert classifiers
        assert all(model.get_parameter(n).shape[0] == self.num_classes for n in classifiers)
