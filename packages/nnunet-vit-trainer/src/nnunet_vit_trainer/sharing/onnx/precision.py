"""An ONNX file's weights in fewer bits, by onnxruntime's own converters.

Softmax and norms stay in float32, and so do inputs and outputs.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from onnx import ModelProto

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

# Norms of all kinds, and what opset 18 writes RMSNorm and the norm of vectors as.
_IN_FLOAT32 = (
    *(f"{name}Normalization" for name in ("Layer", "Instance", "Group", "Batch", "RMS", "Lp")),
    *("Softmax", "LogSoftmax"),
    *("Pow", "Sqrt", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceL2"),
)


def in_precision(model: "ModelProto", precision: Precision) -> "ModelProto":
    """Convert a network; its metadata may get lost.

    Args:
        model: in float32, of one size.
        precision: ``float16``: all weights but those of norms; ``int8``: the weights of matrix
            products, a scale per output channel, whose inputs are quantized as they come.
            Convolutions, and products of activations (attention), stay in float32.
    """
    if precision == "float32":
        return model
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepared(model, Path(folder))
        converted = _float16(prepared) if precision == "float16" else _int8(prepared)
    used = {node.domain for node in converted.graph.node}
    imported = [opset for opset in converted.opset_import if opset.domain in used]
    del converted.opset_import[:]
    converted.opset_import.extend(imported)  # onnxruntime names all that it knows
    return converted


def _prepared(model: "ModelProto", folder: Path) -> Path:
    """Fold constants, while there are kernels for it, and infer shapes, as int8 needs them."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, prepared = folder / "plain.onnx", folder / "prepared.onnx"
    onnx.save(model, plain)  # of a model in memory onnxruntime does not find the weights
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    return prepared


def _float16(prepared: Path) -> "ModelProto":
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *_IN_FLOAT32]
    model = convert_float_to_float16(onnx.load(prepared), keep_io_types=True, op_block_list=blocked)
    converted = ONNXModel(model)
    converted.topological_sort()  # the casts were appended
    del converted.model.graph.value_info[:]  # some types in it are those of before
    return converted.model


def _int8(prepared: Path) -> "ModelProto":
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = prepared.with_name("quantized.onnx")
    quantize_dynamic(
        prepared,
        quantized,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(quantized)
