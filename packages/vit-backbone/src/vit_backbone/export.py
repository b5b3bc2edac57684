"""Take a trained model out of PyTorch: a `torch.export` program, or an ONNX file.

B: batch, C: channels, H, W: image, K: classes, p: patch size.
"""

import copy
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from vit_backbone.segmentation.model import ViTSegmentationModel
from vit_backbone.segmentation.precision import without_autocast
from vit_backbone.vits.packed import refuse_packed
from vit_backbone.vits.patches import make_patches_traceable
from vit_backbone.vits.rope import make_rope_traceable

from .errors import UserError, is_count

TOLERANCE = 1e-4
_OLDEST_TORCH = "2.8.dev0"  # 2.6 exports neither: a variable batch violates its constraints
# Sides of 1 would be taken for constants, by pyramid heads sides of 2 too; not square, so that
# no equality of H and W is either.
_EXAMPLE_GRID = (5, 7)
_OTHER_GRIDS = ((3, 4), (6, 6))


def export_program(
    model: ViTSegmentationModel, size: Sequence[int] | None = None
) -> ExportedProgram:
    """Export a model for any batch and any size in whole patches, or for one size.

    The program holds a copy in evaluation mode, in float32 on the CPU, with the adapters merged
    and deep supervision off; the model itself is left as it is.

    Args:
        model: the model.
        size: (H, W), each at least 1, whole patches or not; ``None`` keeps H and W variable.
            Which side is padded, and how, is decided while tracing, so variable sizes are
            multiples of p, from 3 p on.

    Returns:
        A program from (B, C, H, W) to logits (B, K, H, W). At the grid that a learned position
        embedding was trained for, timm takes a short cut that a trace cannot: for that size, and
        for sides below 3 p, call ``program.module(check_guards=False)``, which is right there
        too (torch 2.8 does not know the argument yet).

    Raises:
        UserError: a wrapped or packed model, an impossible size, a head that cannot be traced, or
            a torch before 2.8.
    """
    if torch.__version__ < _OLDEST_TORCH:
        raise UserError(
            f"exporting needs torch 2.8 or newer, here is {torch.__version__}; update torch"
        )
    merged = _plain_copy(model)
    if any(".lora_" in name for name in merged.state_dict()):
        merged.disable_lora()
    image, shapes = _example(merged, size)
    try:
        with without_autocast("cpu"):
            return torch.export.export(merged, (image,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # a stranger's head may fail in any way
        raise UserError(
            f"torch.export cannot trace {type(model.head).__name__}: {_first_line(error)}; "
            "let no branch or shape in its forward depend on values"
        ) from error


def export_onnx(
    model: ViTSegmentationModel,
    file: str | Path,
    size: Sequence[int] | None = None,
    *,
    opset: int = 18,
) -> float:
    """Write a model as an ONNX file, once it was seen to answer as the model does.

    onnxruntime runs the file on the CPU at other batches (and sizes, where these are variable)
    than the example's. At a size that is not whole patches, where these are variable, the file
    fails at a node that says so. Needs the extra ``[onnx]``.

    Args:
        model: the model; see `export_program`.
        file: the file to write, input ``image``, output ``logits``, both float32. Weights of more
            than 2 GB lie beside it.
        size: see `export_program`.
        opset: version of ONNX's operators, at least 18.

    Returns:
        The largest absolute difference to the model that was seen, at most 1e-4 of the largest
        logit, or of 1 where all logits are smaller.

    Raises:
        UserError: what `export_program` refuses, no folder for the file, a folder of its name, the
            extra is missing, an opset below 18 or that onnxruntime does not know, or a larger
            difference; nothing is written then.
    """
    try:
        import onnxruntime  # noqa: F401 - here, since tracing takes time
        import onnxscript  # noqa: F401 - torch.onnx imports it
    except ImportError as error:
        raise UserError(
            f"ONNX export needs {error.name}: uv pip install 'vit-backbone[onnx]'"
        ) from error
    file = Path(os.path.expanduser(file))
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}; create it")
    if file.is_dir():
        raise UserError(f"{file} is a folder; name the file to write")
    if not is_count(opset) or opset < 18:  # 18 is the first whose Resize can antialias
        raise UserError(f"opset {opset!r}: it must be at least 18")
    program = export_program(model, size)
    try:
        with without_autocast("cpu"):
            onnx_program = torch.onnx.export(
                program,
                input_names=["image"],
                output_names=["logits"],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"ONNX opset {opset} cannot say what {type(model.head).__name__} does: "
            f"{_first_line(error)}; use export_program"
        ) from error
    assert onnx_program is not None  # with dynamo
    if size is None:
        _ask_for_whole_patches(onnx_program.model, model.backbone.patch_embed.patch_size)
    _forget_origins(onnx_program.model)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        written = Path(folder) / file.name
        onnx_program.save(written)
        difference = _largest_difference(written, _plain_copy(model), size)
        for part in Path(folder).iterdir():
            part.replace(file.parent / part.name)
    return difference


def _ask_for_whole_patches(model: Any, patch_size: Sequence[int]) -> None:
    """Let a file fail at other sizes: its logits would be of the right size and lie elsewhere.

    ONNX cannot refuse. What the sides leave when divided is an index into a single zero, which is
    added to the image.
    """
    from onnxscript import ir

    graph = model.graph
    (image,) = graph.inputs
    patch, zero = (
        ir.Value(name=f"whole_patches_{name}", const_value=ir.tensor(values))
        for name, values in (
            ("side", torch.tensor(patch_size).numpy()),
            ("zero", torch.zeros(1).numpy()),
        )
    )
    for value in (patch, zero):
        graph.register_initializer(value)
    name = f"height_and_width_must_be_multiples_of_{patch_size[0]}_and_{patch_size[1]}"
    sides = ir.node("Shape", [image], {"start": 2})
    left = ir.node("Mod", [*sides.outputs, patch])
    zeros = ir.node("Gather", [zero, *left.outputs], name=name)
    nothing = ir.node("ReduceSum", zeros.outputs, {"keepdims": 0})
    same = ir.node("Add", [image, *nothing.outputs])
    (checked,) = same.outputs
    checked.name, checked.type, checked.shape = "checked_image", image.type, image.shape
    for node, index in tuple(image.uses()):
        if node not in (sides, same):
            node.replace_input_with(index, checked)
    graph.insert_before(graph[0], [sides, left, zeros, nothing, same])


def _forget_origins(model: Any) -> None:
    """Remove what the exporter notes of each node: stack traces, with this machine's paths."""
    graph = model.graph
    nodes = list(graph.all_nodes())
    values = [value for node in nodes for value in node.outputs]
    for part in (model, graph, *graph.inputs, *graph.initializers.values(), *nodes, *values):
        part.metadata_props.clear()


def _largest_difference(
    file: Path, model: ViTSegmentationModel, size: Sequence[int] | None
) -> float:
    """Compare a file with the unmerged model, at other batches and sizes than the example's."""
    session = _session(file)
    embed = model.backbone.patch_embed
    grids = [[p * g for p, g in zip(embed.patch_size, grid, strict=True)] for grid in _OTHER_GRIDS]
    hint = "" if size else "; export one size instead, with size=(H, W)"
    worst = 0.0
    for batch, (height, width) in zip((1, 3), [size, size] if size else grids, strict=True):
        image = _noise(batch, embed.proj.in_channels, height, width)
        with without_autocast("cpu"):
            expected = model(image)
        try:
            (got,) = session.run(["logits"], {"image": image.numpy()})
        except Exception as error:  # onnxruntime's have no base class of their own
            raise UserError(
                f"the ONNX file does not run at {height}x{width} and is not kept: "
                f"{_first_line(error)}{hint}"
            ) from error
        difference = (torch.from_numpy(got) - expected).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise UserError(
                f"the ONNX file differs from the model by {difference:.1e} at {height}x{width}, "
                f"more than {TOLERANCE:.0e}, and is not kept{hint}"
            )
        worst = max(worst, difference)
    return worst


def _session(file: Path) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no base class of their own
        raise UserError(
            f"onnxruntime cannot load the ONNX file, which is not kept: {_first_line(error)}; "
            "ask for an older opset, such as 18"
        ) from error


def _first_line(error: Exception) -> str:
    said = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said.removesuffix('Next steps:').rstrip()}"


def _plain_copy(model: ViTSegmentationModel) -> ViTSegmentationModel:
    if not isinstance(model, ViTSegmentationModel):
        raise UserError(
            f"a {type(model).__name__} cannot be exported; give the ViTSegmentationModel in it "
            "(DistributedDataParallel: .module, torch.compile: ._orig_mod)"
        )
    refuse_packed(model)
    plain = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    make_rope_traceable(plain.backbone)  # one that timm alone has built
    make_patches_traceable(plain.backbone)
    if getattr(plain.head, "deep_supervision", False):
        plain.head.deep_supervision = False
    return plain


def _example(
    model: ViTSegmentationModel, size: Sequence[int] | None
) -> tuple[torch.Tensor, dict[int, Any]]:
    """Return an image to trace with, and which of its sides are variable."""
    embed = model.backbone.patch_embed
    shapes: dict[int, Any] = {0: Dim("batch")}
    if size is None:
        patch = tuple(embed.patch_size)
        size = [p * grid for p, grid in zip(patch, _EXAMPLE_GRID, strict=True)]
        shapes |= {2: patch[0] * Dim("rows"), 3: patch[1] * Dim("columns")}
    elif not isinstance(size, Sequence) or len(size) != 2 or not all(map(is_count, size)):
        raise UserError(f"size {size!r}: it must be a height and a width of at least 1 pixel")
    return _noise(2, embed.proj.in_channels, *size), shapes


def _noise(*shape: int) -> torch.Tensor:
    """Return an image of noise; neither the caller's random state nor its defaults matter."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
