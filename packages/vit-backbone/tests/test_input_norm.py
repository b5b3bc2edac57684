"""The normalisation inside of the network: of the channels it is for, on any device."""

import pytest
import torch

from vit_backbone import UserError, export_program, find_head
from vit_backbone.segmentation.input_norm import InputNorm

RGB = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def build(in_channels=3, input_norm=None):
    torch.manual_seed(0)
    return find_head("linear")(
        "test_vit",
        pretrained=False,
        use_lora=False,
        in_channels=in_channels,
        backbone_options={"input_norm": input_norm or RGB},
    ).eval()


def test_a_grey_image_does_not_become_a_colour_image():
    with pytest.raises(UserError, match=r"images of 1 channels came; 3 are expected"):
        build()(torch.randn(1, 1, 32, 32))
    with pytest.raises(UserError, match=r"mean has 3 values and the image 1 channels; give 1 or 1"):
        InputNorm(**RGB)(torch.randn(1, 1, 32, 32))
    with pytest.raises(UserError, match="mean has 3 values and the image 1 channels"):
        build(in_channels=1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_one_value_is_for_any_number_of_channels(channels):
    norm = InputNorm([0.5], [0.25], channels=channels)
    image = torch.rand(2, channels, 4, 5)
    assert torch.equal(norm(image), (image - 0.5) / 0.25)


def test_the_values_are_those_of_0_1_0():
    """There mean and std were float32 buffers."""
    image = torch.rand(2, 3, 4, 5)
    mean, std = (torch.tensor(RGB[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    assert torch.equal(InputNorm(**RGB)(image), (image - mean) / std)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8], ids=str)
def test_the_dtype_is_the_images_or_float(dtype):
    image = torch.ones(1, 3, 2, 2).to(dtype)
    expected = dtype if dtype.is_floating_point else torch.float32
    normed = InputNorm(**RGB)(image)
    assert normed.dtype == expected
    assert normed[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-2)


@pytest.mark.parametrize("empty", ["assign", "to_empty"])
def test_a_model_built_on_meta_is_filled_whole(empty):
    model, image = build(), torch.rand(1, 3, 32, 32)
    with torch.device("meta"):
        other = build()
    if empty == "assign":
        other.load_state_dict(model.state_dict(), assign=True)
    else:
        other.to_empty(device="cpu").load_state_dict(model.state_dict())
    assert torch.equal(other(image), model(image))


@pytest.mark.slow
def test_it_compiles_and_exports():
    torch.compiler.reset()
    model, image = build(), torch.rand(2, 3, 48, 32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), model(image))
    program = export_program(model)
    image = torch.rand(1, 3, 80, 64)
    torch.testing.assert_close(program.module()(image), model(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.0], "std": [0.0]}, "std .* above 0"),
        ({"mean": [0.0], "std": [-1.0]}, "std .* above 0"),
        ({"mean": [], "std": [1.0]}, "mean .* finite numbers"),
        ({"mean": [float("nan")], "std": [1.0]}, "mean .* finite numbers"),
        ({"mean": 0.5, "std": [1.0]}, "mean 0.5: a list of finite numbers"),
        ({"mean": ["a"], "std": [1.0]}, "mean .* finite numbers"),
        ({"mean": [0.0], "std": [1.0], "clamp": [1.0]}, r"clamp \[1.0\]"),
        ({"mean": [0.0], "std": [1.0], "clamp": [1.0, -1.0]}, "clamp .* expected"),
    ],
)
def test_impossible_statistics_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        InputNorm(**arguments)


@pytest.mark.parametrize("clamp", [None, (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_whole_numbers_become_floats(dtype, clamp):
    image = torch.ones(1, 1, 2, 2, dtype=dtype)
    normalised = InputNorm([0.5], [0.25], clamp)(image)
    assert normalised.dtype == torch.float32
    assert (normalised == 2).all()
