"""A trained model as an ONNX file: what is in it, in each precision, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import predictor_of_serving
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from trained_results import call, write_results

from nnunet_vit_trainer.commands.export import export as export_command
from nnunet_vit_trainer.sharing.onnx import write
from nnunet_vit_trainer.sharing.onnx.precision import in_precision
from vit_backbone import UserError, sha256_of

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
traces = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(exporter):
    return write_results(exporter, "for_onnx")


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    """The command's file, of an adapter checkpoint."""
    file = tmp_path_factory.mktemp("a folder") / "mödel 1.onnx"
    call(export_command, folder, file, "--onnx", "-f", "0", "-chk", "checkpoint_best.pth")
    return file


def session_of(file):
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@traces
def test_masks_are_stocks(folder, file):
    predictor = predictor_of_serving.load()
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(folder), (0,))
    random = np.random.default_rng(0)
    for size in ((70, 45), (20, 17), (32, 32)):
        image = random.integers(1, 255, (1, 1, *size)).astype(np.float32)
        expected = stock.predict_single_npy_array(image, {"spacing": (999, 1, 1)})
        got = predictor.predict([session_of(file)], image, (999, 1, 1))
        assert len(np.unique(expected)) > 1
        assert np.mean(got == expected) >= 0.999


@traces
def test_the_file_tells_what_it_is_and_nothing_of_this_machine(folder, file):
    metadata = json.loads(session_of(file).get_modelmeta().custom_metadata_map["nnunet_vit"])
    assert metadata["tile"] == [32, 32]
    assert metadata["flips"] == [[], [1], [2], [1, 2]]
    assert metadata["channels"] == [
        {
            "name": "gray",
            "scheme": "ZScoreNormalization",
            "masked": False,
            "statistics": {"mean": 127.0, "std": 74.0},
        }
    ]
    assert metadata["labels"] == {"background": 0, "a": 1, "b": 2}
    assert metadata["precision"] == "float32"
    assert metadata["model"]["fold"] == "0"
    assert metadata["model"]["sha256"] == sha256_of(folder / "fold_0" / "checkpoint_best.pth")
    content = file.read_bytes()
    assert b'File "' not in content
    assert str(Path(write.__file__).parent).encode() not in content
    assert str(folder.parent).encode() not in content
    assert [other.name for other in file.parent.iterdir()] == [file.name]


def types_of(model):
    """Element types of all values of a graph, by name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def weights_of_products(model):
    constants = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    return [node.input[1] for node in products if node.input[1] in constants]


@traces
def test_float16_keeps_softmax_norms_and_both_ends_in_float32(file):
    whole, half = onnx.load(file), in_precision(onnx.load(file), "float16")
    onnx.checker.check_model(half)
    types, full = types_of(half), onnx.TensorProto.FLOAT
    kept = [n for n in half.graph.node if n.op_type in ("Softmax", "LayerNormalization")]
    assert {node.op_type for node in kept} == {"Softmax", "LayerNormalization"}
    assert {types[name] for node in kept for name in (*node.input, *node.output)} == {full}
    assert {types[value.name] for value in (*half.graph.input, *half.graph.output)} == {full}
    weights = weights_of_products(half)
    assert weights
    assert {types[name] for name in weights} == {onnx.TensorProto.FLOAT16}
    assert half.ByteSize() < 0.6 * whole.ByteSize()
    image = np.random.default_rng(0).standard_normal((2, 1, 32, 32), dtype=np.float32)
    expected, got = (
        session_of(model.SerializeToString()).run(["logits"], {"image": image})[0]
        for model in (whole, half)
    )
    np.testing.assert_allclose(got, expected, atol=0.01 * np.abs(expected).max())


@traces
def test_int8_quantizes_every_product_with_weights_and_nothing_else(file):
    whole, small = onnx.load(file), in_precision(onnx.load(file), "int8")
    onnx.checker.check_model(small)
    assert not weights_of_products(small)
    products = [node for node in small.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) >= len(weights_of_products(whole)) > 0
    values = {tensor.name: tensor for tensor in small.graph.initializer}
    quantized = [node.input[1] for node in products if node.input[1] in values]
    for name in quantized:  # a scale per output channel
        scale = values[name.removesuffix("_quantized") + "_scale"]
        assert list(scale.dims) == list(values[name].dims)[-1:]
    assert quantized
    assert {opset.domain for opset in small.opset_import} == {""}
    counts = [sum(n.op_type == "Conv" for n in model.graph.node) for model in (whole, small)]
    assert counts[0] == counts[1]
    image = np.random.default_rng(0).standard_normal((2, 1, 32, 32), dtype=np.float32)
    (got,) = session_of(small.SerializeToString()).run(["logits"], {"image": image})
    assert np.isfinite(got).all()


@traces
def test_values_beyond_float16_are_not_kept(file, tmp_path):
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if "patch_embed" in tensor.name and len(tensor.dims) == 4:
            tensor.raw_data = (1e30 * onnx.numpy_helper.to_array(tensor)).tobytes()
    onnx.save(in_precision(model, "float16"), tmp_path / "huge.onnx")
    metadata = {"channels": [0], "tile": [32, 32]}
    with pytest.raises(UserError, match="beyond float16, so the file is not kept"):
        write._try(tmp_path / "huge.onnx", metadata, "float16")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out"], "out: a zip is written, name it out.zip"),
        (["out.zip", "--onnx"], "out.zip: --onnx, and nothing else, writes a file named .onnx"),
        (["out.onnx"], "--onnx, and nothing else"),
        (["out.onnx", "--merged"], "--onnx, and nothing else"),
        (["out.zip", "--precision", "int8"], "--precision goes with --onnx"),
        (["out.onnx", "--onnx", "--precision", "int4"], "invalid choice: 'int4'"),
        (["out.onnx", "--onnx", "-f", "0", "1"], "-f 0 1: an ONNX file holds one network"),
        (["out.onnx", "--onnx", "-f", "3"], "fold_3/checkpoint_final.pth"),
        (["out.onnx", "--onnx", "-chk", "latest"], "a name as checkpoint_final.pth is expected"),
        (["no/out.onnx", "--onnx"], "there is no folder"),
    ],
)
def test_mistakes_are_one_line(arguments, said, folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(export_command, folder, tmp_path / arguments[0], *arguments[1:])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("\n") == 1
    assert said in message
    assert not list(tmp_path.iterdir())


def test_several_folds_a_missing_extra_and_large_weights_are_refused(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "run17")
    two = tmp_path / folder.name
    two.symlink_to(tmp_path / "run17")
    shutil.copytree(two / "fold_0", two / "fold_all")
    with pytest.raises(UserError, match="there are folds 0, all; export each"):
        write.export_onnx_vit(two, tmp_path / "out.onnx")
    with pytest.raises(UserError, match="precision 'half': expected float32, float16, int8"):
        write.export_onnx_vit(two, tmp_path / "out.onnx", precision="half")
    monkeypatch.setattr(write, "_MOST", 1000)
    with pytest.raises(UserError, match=r"0\.0 GB in float32, and one ONNX file holds 2 GB"):
        write.export_onnx_vit(folder, tmp_path / "out.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript: uv pip install 'nnunet-vit-trainer\[onnx\]'"):
        write.export_onnx_vit(folder, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
