"""Weight files with a wrong byte, a missing end, lies, or code: one line, or a complete load."""

import io
import os
import pickle
import random
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer

from vit_backbone import WeightsError, create_backbone, load_weights
from vit_backbone.weights.files import find_weights, read_checkpoint

FORMATS = ("safetensors", "zip", "legacy")
MAGIC = 0x1950A86A20F9469CFC6C  # what torch's files began with before version 1.6


@pytest.fixture(scope="module")
def model():
    """A whole ViT of 60 kB, so that many a byte is no weight."""
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2}
    return VisionTransformer(**size, num_classes=0, dynamic_img_size=True).eval()


def torch_file(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def whole(model):
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = (
        save(tensors),
        torch_file({"model": tensors, "epoch": 3}),
        torch_file({"model": tensors}, _use_new_zipfile_serialization=False),
    )
    return dict(zip(FORMATS, made, strict=True))


def refused(make, *arguments):
    with pytest.raises(WeightsError) as caught:
        make(*arguments)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 500
    return message


def outcome(model, file, original):
    """Say whether a file was loaded; where it was not, nothing of the model may have changed."""
    said = ""
    try:
        report = load_weights(model, file)
    except WeightsError as error:
        said = str(error)
    assert len(said) <= 500
    assert not said or said.isprintable()
    if said:
        assert all(torch.equal(t, original[name]) for name, t in model.state_dict().items())
        return "refused"
    loaded = model.state_dict()
    assert report.tensors == len(loaded)
    assert all(tensor.isfinite().all() for tensor in loaded.values())
    same = all(torch.equal(tensor, original[name]) for name, tensor in loaded.items())
    model.load_state_dict(original)
    return "the same" if same else "loaded, another"


def spoilt(content, dice):
    """Change one byte, one time in five cut the end off; headers are hit as often as weights."""
    ends = (dice.randrange(min(4000, len(content))), len(content) - 1 - dice.randrange(8000))
    position = dice.choice([dice.randrange(len(content)), *ends])
    if dice.random() < 0.2:
        return content[: max(0, position)]
    changed = bytearray(content)
    changed[position] ^= dice.randrange(1, 256)
    return bytes(changed)


def spoil_often(kind, times, model, whole, file):
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dice, counted = random.Random(0), Counter()
    for _ in range(times):
        file.write_bytes(spoilt(whole[kind], dice))
        counted[outcome(model, file, original)] += 1
    assert counted["refused"]
    # A torch file has checksums, so that no changed byte of a tensor is ever taken for a weight.
    assert kind != "zip" or not counted["loaded, another"]
    return counted


@pytest.mark.filterwarnings("ignore")  # torch warns of pickles of other protocols
@pytest.mark.parametrize("kind", FORMATS)
def test_a_wrong_byte_or_a_missing_end_is_one_line_or_a_complete_load(kind, model, whole, tmp_path):
    spoil_often(kind, 100, model, whole, tmp_path / "weights")


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_thousand_wrong_bytes(kind, model, whole, tmp_path, record_property):
    counted = spoil_often(kind, 1000, model, whole, tmp_path / "weights")
    record_property(kind, dict(counted))


def test_a_damaged_weight_is_told_where_the_file_has_a_checksum(model, whole, tmp_path):
    content = bytearray(whole["zip"])
    content[content.index(model.state_dict()["norm.bias"].numpy().tobytes()) + 4] ^= 1
    (tmp_path / "weights.pth").write_bytes(content)
    assert "is damaged (in 'archive/data/" in refused(load_weights, model, tmp_path / "weights.pth")


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"norm.bias": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_checkpoint(tmp_path / "a.pth").tensors["norm.bias"], torch.ones(3))


class Lies:
    """A tensor that says it is larger than its storage."""

    def __init__(self, *size, stride=1):
        self.size, self.stride = size, (stride,) * len(size)

    def __reduce__(self):
        tensor = torch.zeros(2)
        rebuild, arguments = tensor.__reduce_ex__(2)
        return rebuild, (arguments[0], 0, self.size, self.stride, False, OrderedDict())


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "lie", [Lies(10**6), Lies(2**62), Lies(10**6, 10**6, stride=0), Lies(-3), Lies(4, stride=2**61)]
)
def test_a_tensor_that_says_it_is_larger_than_what_is_stored_is_refused(lie, new, tmp_path):
    content = {"patch_embed.proj.weight": torch.zeros(2), "norm.bias": lie}
    (tmp_path / "a.pth").write_bytes(torch_file(content, _use_new_zipfile_serialization=new))
    refused(read_checkpoint, tmp_path / "a.pth")


class Asks:
    """A tensor that is asked for by its size alone."""

    def __init__(self, size):
        self.size = size

    def __reduce__(self):
        return torch.FloatTensor, (self.size,)


@pytest.mark.parametrize("size", [1000, 10**9])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_tensor_of_which_nothing_is_stored_is_refused(size, new, tmp_path):
    content = torch_file({"norm.bias": Asks(size)}, _use_new_zipfile_serialization=new)
    (tmp_path / "a.pth").write_bytes(content)
    assert "more than are stored" in refused(read_checkpoint, tmp_path / "a.pth")


def test_a_file_that_unpacks_to_a_thousandfold_is_refused(tmp_path):
    with (
        zipfile.ZipFile(io.BytesIO(torch_file({"norm.bias": torch.zeros(10**6)}))) as old,
        zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    assert "compressed inside" in refused(read_checkpoint, tmp_path / "a.pth")


COMMAND = b"open('run_by_it', 'w')"
TEXT = b"X" + len(COMMAND).to_bytes(4, "little") + COMMAND
RUNS = {
    "reduce": b"\x80\x02cbuiltins\neval\n" + TEXT + b"\x85R.",
    "reduce, as Python 2 names it": b"\x80\x02c__builtin__\neval\n" + TEXT + b"\x85R.",
    "inst": b"\x80\x02(" + TEXT + b"ibuiltins\neval\n.",
    "obj": b"\x80\x02(cbuiltins\neval\n" + TEXT + b"o.",
    "newobj": b"\x80\x02cbuiltins\neval\n" + TEXT + b"\x85\x81.",
    "by the names on the stack": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + TEXT + b"\x85R.",
    "a method of what is safe": b"\x80\x02cnumpy\ndtype.__call__\n" + TEXT + b"\x85R.",
    "another package's": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n" + TEXT + b"}\x86R.",
    "a state for what is safe": b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\0\0\0__class__"
    b"cbuiltins\neval\nsb.",
}
NO_CODE = {
    "lists in each other": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "marks without end": b"\x80\x02" + b"(" * 100_000 + b".",
    "a text of four gigabytes": b"\x80\x02X\xff\xff\xff\xffabc.",
    "nothing on the stack": b"\x80\x02.",
    "a place that was never filled": b"\x80\x02h\x07.",
    "no end": b"\x80\x02}",
}


def a_key_that_takes_for_ever(kind=b""):
    """Tuples of ten times the one before, thirty of them; the last becomes a key: it is hashed."""
    made = b"])q\0a"
    for level in range(30):
        tens = b"(" + b"h%c" % level * 10 + b"t"
        made += (kind + tens + b"\x85R" if kind else tens) + b"q%ca" % (level + 1)
    return b"\x80\x02" + made + b"}h\x1eK\x01sa."


NO_CODE |= {
    "a tuple in a tuple for ever": a_key_that_takes_for_ever(),
    "a size in a size for ever": a_key_that_takes_for_ever(b"ctorch\nSize\n"),
    "a terabyte of nothing": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
}


def as_legacy(content):
    return b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {})) + content


def as_zip(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [as_legacy, as_zip, bytes])
@pytest.mark.parametrize("case", [*RUNS, *NO_CODE])
def test_a_pickle_that_would_run_code_or_never_end_is_refused(case, form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(form((RUNS | NO_CODE)[case]))
    refused(read_checkpoint, tmp_path / "a.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("code", [*RUNS.values()][:2])
def test_the_code_above_does_run_where_pickles_are_trusted(code, tmp_path, monkeypatch):
    """Or the test before this one would test nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(code).close()
    assert (tmp_path / "run_by_it").exists()


def test_what_is_neither_a_file_nor_a_folder_is_refused_at_once(model, tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    assert "neither a file nor" in refused(load_weights, model, tmp_path / "pipe.pth")
    assert "neither a file nor" in refused(create_backbone, "test_vit", None, tmp_path / "pipe.pth")


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-that-name/a.pth", "a\0b", "a\nb"])
def test_a_path_that_no_system_has_is_one_line(path):
    assert "is not there" in refused(find_weights, "test_vit", "test_vit.r160_in1k", path)
