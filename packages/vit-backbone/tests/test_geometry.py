"""Auxiliary logits are resampled once, and speak of the image as the prediction does."""

import pytest
import torch
import torch.nn.functional as F

from vit_backbone.segmentation.geometry import fit_to_image


@pytest.mark.parametrize(("size", "scale"), [((64, 96), 1 / 2), ((64, 96), 1 / 16)])
def test_logits_of_the_right_size_are_taken_as_they_are(size, scale):
    """To the full size and back they changed by 46 % at 1/2."""
    logits = torch.randn(2, 3, *(int(side * scale) for side in size))
    assert torch.equal(fit_to_image(logits, size, size, scale), logits)


def test_where_the_scale_fits_the_padding_is_only_cropped():
    logits = torch.randn(1, 2, 24, 32)
    got = fit_to_image(logits, (48, 64), (40, 50), 1 / 2)
    assert torch.equal(got, logits[..., :20, :25])


@pytest.mark.parametrize("grid", [(3, 4), (24, 32), (48, 64), (56, 75)])
@pytest.mark.parametrize("size", [(48, 64), (40, 50), (33, 64), (47, 51), (1, 63)])
@pytest.mark.parametrize("scale", [1 / 2, 1 / 8, 1 / 16])
def test_a_ramp_stays_where_it_is(grid, size, scale):
    """Each logit says where its centre lies in the image, in either axis."""
    padded = (48, 64)
    rows, columns = (
        (torch.arange(cells) + 0.5) * side / cells for side, cells in zip(padded, grid, strict=True)
    )
    logits = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None].double()
    got = fit_to_image(logits, padded, size, scale)
    wanted = [max(1, round(side * scale)) for side in size]
    assert list(got.shape[-2:]) == wanted
    for axis, (side, cells) in enumerate(zip(size, wanted, strict=True)):
        expected = (torch.arange(cells).double() + 0.5) * side / cells
        # Beyond the outermost centres there is nothing to interpolate between.
        half = padded[axis] / grid[axis] / 2
        expected = expected.clamp(half, padded[axis] - half)
        line = got[0, axis].movedim(axis, 0)[:, 0]
        torch.testing.assert_close(line, expected, rtol=1e-5, atol=1e-4)


def test_one_resampling_equals_torchs():
    logits = torch.randn(2, 3, 40, 30)
    got = fit_to_image(logits, (64, 64), (64, 64), 1 / 2)
    expected = F.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, expected)
    logits.requires_grad_()
    fit_to_image(logits, (64, 64), (60, 50), 1 / 4).square().sum().backward()
    assert logits.grad.isfinite().all()


def test_the_prediction_is_resampled_to_the_padded_size_and_cropped():
    logits = torch.randn(1, 2, 6, 8)
    whole = F.interpolate(logits, (48, 64), mode="bilinear", align_corners=False)
    assert torch.equal(fit_to_image(logits, (48, 64), (40, 50)), whole[..., :40, :50])
