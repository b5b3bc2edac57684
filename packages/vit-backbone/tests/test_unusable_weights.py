"""Files that no backbone may be filled from: one line each, and nothing changed."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vit_backbone import WeightsError, create_backbone, load_weights
from vit_backbone.weights.files import read_checkpoint, weight_files


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_backbone("test_vit", pretrained=False)[0]


@pytest.fixture
def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def refused(make, *arguments):
    with pytest.raises(WeightsError) as caught:
        make(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


NAME = "blocks.2.mlp.fc1.bias"
UNUSABLE = {
    "nan": (lambda t: t.index_fill(0, torch.tensor([5]), torch.nan), "not finite"),
    "inf": (lambda t: t.index_fill(0, torch.tensor([5]), -torch.inf), "not finite"),
    "beyond float32": (lambda t: t.double() + 1e300, "not finite"),
    "integer": (lambda t: t.to(torch.int64), "int64"),
    "bool": (lambda t: t > 0, "bool"),
    "complex": (lambda t: t.to(torch.complex64), "complex64"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "meta": (lambda t: t.to("meta"), "without values"),
    "sparse": (lambda t: t.to_sparse(), "sparse"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "qint8"),
    "empty": (lambda t: t[:0], r"\(0,\)"),
}


@pytest.mark.filterwarnings("ignore")  # torch itself warns of sparse and quantised tensors
@pytest.mark.parametrize("case", UNUSABLE)
def test_a_tensor_that_is_unusable_is_named(case, model, tensors, tmp_path):
    spoil, said = UNUSABLE[case]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(tensors | {NAME: spoil(tensors[NAME])}, tmp_path / "weights.pth")
    message = refused(load_weights, model, tmp_path / "weights.pth")
    assert NAME in message
    assert said.replace("\\", "") in message
    assert len(message) < 400 + len(str(tmp_path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_left_out_may_be_anything(model, tensors, tmp_path):
    beside = {"head.weight": torch.full((3, 64), torch.nan), "mask_token": torch.zeros(1).int()}
    torch.save(tensors | beside, tmp_path / "weights.pth")
    load_weights(model, tmp_path / "weights.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_floating_point_of_any_width_is_taken(dtype, model, tensors, tmp_path):
    torch.save({name: t.to(dtype) for name, t in tensors.items()}, tmp_path / "weights.pth")
    load_weights(model, tmp_path / "weights.pth")
    assert torch.equal(model.norm.weight, tensors["norm.weight"].to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_values_beyond_the_range_of_a_backbone_are_refused(dtype, model, tensors, tmp_path):
    torch.save(tensors | {NAME: tensors[NAME] + 3.4e38}, tmp_path / "weights.pth")
    before = {name: t.to(dtype) for name, t in tensors.items()}
    message = refused(load_weights, model.to(dtype), tmp_path / "weights.pth")
    assert f"{NAME} holds values beyond the range of {str(dtype)[6:]}" in message
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.nn.Linear(2, 2), r"more than data (torch.nn.modules.linear.Linear)"),
        ({"student": {"norm.weight": torch.ones(2)}}, "under teacher, model, state_dict"),
    ],
    ids=["module", "another container"],
)
def test_what_to_save_instead_is_said(content, said, model, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    message = refused(load_weights, model, tmp_path / "weights.pth")
    assert said in message
    assert "state_dict()" in message.split(said)[1]
    assert "\x1b" not in message
    assert "weights_only" not in message  # torch's advice is to run the code in the file


@pytest.mark.parametrize(
    "start",
    [b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", b"<html>", b""],
    ids=str,
)
def test_what_is_not_whole_is_to_be_copied_anew(start, model, tmp_path):
    (tmp_path / "weights.pth").write_bytes(start)
    assert "copy or download it anew" in refused(load_weights, model, tmp_path / "weights.pth")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save], ids=lambda f: f.__name__)
def test_numpys_files_are_called_so(save, model, tmp_path):
    """They are whole, and copying them anew would mend nothing."""
    with (tmp_path / "weights.pth").open("wb") as stream:
        save(stream, np.zeros(3))
    message = refused(load_weights, model, tmp_path / "weights.pth")
    assert "is in NumPy's format; save the model's state_dict()" in message
    assert "anew" not in message


def test_a_torch_file_called_safetensors_is_read(model, tensors, tmp_path):
    torch.save(tensors, tmp_path / "weights.safetensors")
    assert load_weights(model, tmp_path / "weights.safetensors").tensors == len(tensors)


def test_a_prefix_of_all_names_is_said(model, tensors, tmp_path):
    save_file({f"tower.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "w.st")
    assert "begin with 'tower': save the state dict of" in refused(
        load_weights, model, tmp_path / "w.st"
    )


def write_shards(folder, tensors, index, names=("a.safetensors", "b.safetensors")):
    half = len(tensors) // 2
    for name, part in zip(names, (list(tensors)[:half], list(tensors)[half:]), strict=True):
        save_file({key: tensors[key] for key in part}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "sub/a.safetensors", "/etc/passwd", "..", "", 3, None]
)
def test_a_shard_outside_of_the_folder_is_refused(shard, tensors, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    save_file(tensors, tmp_path / "outside.safetensors")
    index = {"weight_map": {"norm.weight": "a.safetensors", "norm.bias": shard}}
    write_shards(folder, tensors, index)
    assert "model.safetensors.index.json" in refused(weight_files, folder)


def test_a_missing_shard_is_named(tensors, tmp_path):
    index = {"weight_map": {"norm.weight": "a.safetensors", "norm.bias": "c.safetensors"}}
    write_shards(tmp_path, tensors, index)
    assert "c.safetensors" in refused(read_checkpoint, tmp_path)


def test_an_index_alone_is_no_weights(tensors, tmp_path):
    write_shards(tmp_path, tensors, {"weight_map": {"x": "a.safetensors"}})
    file = tmp_path / "model.safetensors.index.json"
    assert f"give its folder {tmp_path}" in refused(read_checkpoint, file)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {}}, 3], ids=str)
def test_what_is_no_index_is_refused(index, tensors, tmp_path):
    write_shards(tmp_path, tensors, index)
    assert "not an index of shards" in refused(read_checkpoint, tmp_path)


def test_a_tensor_in_two_shards_is_refused(tensors, tmp_path):
    write_shards(tmp_path, tensors, {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    save_file(tensors, tmp_path / "b.safetensors")
    message = refused(read_checkpoint, tmp_path)
    assert "b.safetensors" in message
    assert "another shard" in message


def test_shards_of_torch_files(model, tensors, tmp_path):
    half = len(tensors) // 2
    for name, part in (("1.bin", list(tensors)[:half]), ("2.bin", list(tensors)[half:])):
        torch.save({key: tensors[key] for key in part}, tmp_path / name)
    index = {"weight_map": {"x": "1.bin", "y": "2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert load_weights(model, tmp_path).tensors == len(tensors)


def zip_of_others():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    return buffer.getvalue()


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def nested(levels):
    content = {"norm.weight": torch.zeros(3)}
    for _ in range(levels):
        content = {"model": content}
    return content


def endless():
    content = {}
    content["model"] = content
    return content


def scripted():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


LONG = "x" * 5000
JUNK = {
    "a zip of other things": zip_of_others,
    "an empty zip": lambda: b"PK\x05\x06" + bytes(18),
    "a page": lambda: b"<!DOCTYPE html><html>sign in</html>",
    "a pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a pickle opcode": lambda: b"\x80\x02\x8a\xff",
    "zeros": lambda: bytes(100),
    "a header of braces": lambda: (3000).to_bytes(8, "little") + b"{" * 3000,
    "a header that lies": lambda: (1 << 60).to_bytes(8, "little") + b"{}",
    "a bad dtype": lambda: (60).to_bytes(8, "little")
    + b'{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}'.ljust(60) + bytes(4),
    "a scripted model": scripted,
    "nested too deeply": lambda: torch_file(nested(50)),
    "in itself": lambda: torch_file(endless()),
    "keys too long": lambda: torch_file({LONG: torch.zeros(2), f"a\n{LONG}": torch.zeros(2)}),
    "keys too long, no tensors": lambda: torch_file({LONG: 1, f"a\n{LONG}": 2}),
    "a tensor": lambda: torch_file(torch.zeros(3)),
    "numbers for keys": lambda: torch_file({1: torch.zeros(2), "1": torch.zeros(2)}),
    "a scalar": lambda: torch_file({"patch_embed.proj.weight": torch.tensor(1.0)}),
    "biases that are scalars": lambda: torch_file(
        {"storage_tokens": torch.zeros(1), "blocks.0.attn.qkv.bias": torch.tensor(1.0)}
    ),
    "parts of qkv of other shapes": lambda: torch_file({
        f"encoder.layer.0.attention.attention.{part}.weight": torch.zeros(2 + i, 3 + i)
        for i, part in enumerate(("query", "key", "value"))
    } | {"encoder.layer.0.layer_scale1.lambda1": torch.zeros(2)}),
}  # fmt: skip


@pytest.mark.parametrize("case", JUNK)
@pytest.mark.parametrize("name", ["test_vit", "dinov3"])
def test_junk_gets_one_line(case, name, tmp_path):
    (tmp_path / "weights.pth").write_bytes(JUNK[case]())
    message = refused(create_backbone, name, None, tmp_path / "weights.pth")
    assert len(message) < 450 + len(str(tmp_path)), message


def test_a_scripted_model_is_told_how_to_become_a_weight_file(tmp_path):
    """OpenAI's CLIP files are such: to read them is to run them."""
    (tmp_path / "clip.pt").write_bytes(scripted())
    assert "state_dict()" in refused(create_backbone, "test_vit", None, tmp_path / "clip.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_gets_one_line_wherever_it_ends(legacy, tensors, tmp_path):
    few = {name: tensors[name] for name in list(tensors)[:5]}
    for suffix in (".pth", ".safetensors"):
        file = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save(few, file, _use_new_zipfile_serialization=not legacy)
        else:
            save_file(few, file)
        whole = file.read_bytes()
        for end in [*range(0, 40, 3), *range(40, len(whole), len(whole) // 40)]:
            file.write_bytes(whole[:end])
            assert len(refused(read_checkpoint, file)) < 400 + len(str(tmp_path))
