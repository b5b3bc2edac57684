"""What a stranger pickled is written anew as plain data, no larger than what came."""

import copy
import json
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from trained_results import rewrite

from nnunet_vit_trainer.sharing import install
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.foreign.plain_data import plain_copy
from nnunet_vit_trainer.sharing.install import import_vit
from vit_backbone import UserError


@pytest.fixture(scope="module")
def whole(trained_folder, tmp_path_factory):
    return export_vit(trained_folder, tmp_path_factory.mktemp("whole") / "whole.zip")


@pytest.fixture(scope="module")
def checkpoint(trained_folder):
    return torch.load(trained_folder / "fold_0" / "checkpoint_final.pth", weights_only=False)


@pytest.fixture
def installed(whole, tmp_path):
    """Import the export with another checkpoint: its content, or the file's bytes."""

    def installed(content):
        if not isinstance(content, bytes):
            torch.save(content, tmp_path / "changed.pth")
            content = (tmp_path / "changed.pth").read_bytes()
        file = rewrite(whole, tmp_path / "changed.zip", checkpoint_final_pth=content)
        try:
            return import_vit(file, tmp_path / "results")[0] / "fold_0" / "checkpoint_final.pth"
        finally:
            (tmp_path / "results").mkdir(exist_ok=True)
            assert not list((tmp_path / "results").glob(".*"))

    return installed


def refused(installed, content, match):
    with pytest.raises(UserError, match=match) as raised:
        installed(content)
    assert str(raised.value).isprintable()


class Reduced:
    """Pickled as a call, and a state that the result is given."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def an_array(size):
    rebuild = np.zeros(1).__reduce__()[0]
    return Reduced(rebuild, (np.ndarray, (size,), b"b"))


def a_view(size):
    return Reduced(np.ndarray, ((size,), np.dtype("u1"), b"x", 0, (0,)))


def a_tensor(size, stored=1):
    rebuild, arguments = torch.zeros(stored).__reduce_ex__(2)
    return Reduced(rebuild, (arguments[0], 0, (size,), (1,), False, OrderedDict()))


def a_list_of_lists(levels):
    inner = []
    for _ in range(levels):
        inner = [inner, inner]
    return inner


def in_itself():
    inner = []
    inner.append(inner)
    return inner


JUNK = {
    "an array of no bytes": (lambda: an_array(1 << 27), "more than the file"),
    "an array of one byte": (lambda: a_view(1 << 27), "more than the file"),
    "a tensor of one value": (lambda: a_tensor(1 << 27), "more than the file|cannot be read"),
    "a tensor of no values": (
        lambda: Reduced(torch.FloatTensor, (1 << 27,)),
        "more than the file",
    ),
    "zeros of no bytes": (lambda: Reduced(bytearray, (1 << 27,)), "a bytearray"),
    "a list a billion times": (lambda: a_list_of_lists(40), "more than the file"),
    "a list in itself": (in_itself, "deeper than 64"),
    "a set": (lambda: {1}, "a set"),
    "a method that is a text": (
        lambda: Reduced(OrderedDict, (), {"__reduce_ex__": "x"}),
        None,
    ),
    "items that are a text": (lambda: Reduced(OrderedDict, (), {"items": "x"}), None),
    "a tensor on no device": (lambda: torch.empty(3, device="meta"), "no plain data"),
    "a tensor of one place": (lambda: torch.zeros(1).expand(9, 9), "no plain data"),
    "a tensor for a name": (lambda: {torch.zeros(1): 1}, "by a Tensor"),
    "objects in an array": (lambda: an_array_of_objects(), "no plain data|cannot be read"),
}


def an_array_of_objects():
    rebuild = np.zeros(1).__reduce__()[0]
    return Reduced(rebuild, (np.ndarray, (3,), b"O"))


@pytest.mark.parametrize("case", JUNK)
def test_data_that_are_not_plain_are_refused_or_left_behind(case, checkpoint, installed):
    make, match = JUNK[case]
    changed = checkpoint | {"logging": {"a": [make()]}}
    if match is None:
        written = torch.load(installed(changed), weights_only=False)
        assert written["logging"] == {"a": [{}]}
    else:
        refused(installed, changed, match)


def nested(source, levels):
    """Let a checkpoint's pickle end with ``logging``: lists in each other, deeper than Python's."""
    return ending(source, b"]" * levels + b"a" * (levels - 1))


def ending(source, value):
    """Let a checkpoint's pickle end with ``logging``, which is a piece of a pickle."""
    deep = b"X\x07\0\0\0logging" + value + b"u."
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(source.with_name("n.pth"), "w") as new:
        for record in old.infolist():
            content = old.read(record)
            is_pickle = record.filename.endswith("data.pkl")
            assert not is_pickle or content.endswith(b"u.")
            new.writestr(record.filename, content[:-2] + deep if is_pickle else content)
    return source.with_name("n.pth").read_bytes()


def test_lists_in_each_other_without_end_are_refused(checkpoint, installed, tmp_path):
    torch.save(checkpoint, tmp_path / "a.pth")
    refused(installed, nested(tmp_path / "a.pth", 5000), "nested deeper than 64|cannot be read")


def test_a_key_whose_hash_would_take_for_ever_is_refused(checkpoint, installed, tmp_path):
    """A tuple that holds the one before it ten times, thirty times over."""
    made = b"])r\0\0\1\0a"
    for level in range(30):
        made += b"(" + b"j%c\0\1\0" % level * 10 + b"tr%c\0\1\0a" % (level + 1)
    torch.save(checkpoint, tmp_path / "a.pth")
    evil = ending(tmp_path / "a.pth", made + b"}j\x1e\0\1\0K\x01sa")
    refused(installed, evil, "means far more than it holds")


@pytest.mark.parametrize("value", [np.zeros(3), torch.zeros(3), ["2d"], {}], ids=repr)
@pytest.mark.parametrize("key", ["configuration", "trainer_name", "rebuilt_from"])
def test_names_that_are_no_text_are_refused(key, value, checkpoint, installed):
    changed = copy.copy(checkpoint)
    if key == "configuration":
        changed["init_args"] = checkpoint["init_args"] | {key: value}
    else:
        changed[key] = value
    if key == "rebuilt_from" and isinstance(value, dict):
        assert torch.load(installed(changed), weights_only=False)[key] is None
    else:
        refused(installed, changed, "init_args|names the trainer|names no weight file")


def test_attributes_stay_behind(checkpoint, installed):
    weights = OrderedDict(checkpoint["network_weights"])
    first = next(iter(weights))
    weights[first] = weights[first].clone()
    weights[first].note, weights.note = "x", "x"
    written = torch.load(installed(checkpoint | {"network_weights": weights}), weights_only=False)
    assert torch.equal(written["network_weights"][first], weights[first])
    assert not hasattr(written["network_weights"][first], "note")
    assert not hasattr(written["network_weights"], "note")


def test_records_that_share_their_bytes_are_refused(checkpoint, installed, tmp_path):
    """torch reads each into memory of its own."""
    file = tmp_path / "shared.pth"
    torch.save(checkpoint, file)
    with zipfile.ZipFile(file, "a") as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        for i in range(50):
            again = copy.copy(largest)
            again.filename = f"{largest.filename}{i}"
            archive.filelist.append(again)
        archive._didModify = True
    refused(installed, file.read_bytes(), "larger than the file")


def test_what_our_trainings_write_is_copied_whole():
    states = {"numpy": np.random.get_state(), "numbers": (np.float32(0.5), np.int64(3), True)}
    content = {"logging": {"dice": [0.5, None]}, "device": torch.device("cpu"), **states}
    copied = plain_copy(content, 10_000, "a.pth")
    assert copied["numpy"][0] == "MT19937"
    assert np.array_equal(copied["numpy"][1], states["numpy"][1])
    assert {n: v for n, v in copied.items() if n != "numpy"} == {
        n: v for n, v in content.items() if n != "numpy"
    }


def test_an_adapter_must_fit_before_its_plans_are_built_in_memory(
    trained_folder, exporter, tmp_path, monkeypatch
):
    file = export_vit(trained_folder, tmp_path / "adapter.zip", form="adapter")
    plans = json.loads((trained_folder / "plans.json").read_text())
    settings = plans["configurations"]["2d"]
    settings["architecture"]["arch_kwargs"]["lora_rank"] = 4000
    evil = rewrite(file, tmp_path / "evil.zip", plans_json=json.dumps(plans))
    monkeypatch.setattr(install, "_base_of", lambda *_: pytest.fail("built in memory"))
    with pytest.raises(UserError, match="does not fit its plans"):
        import_vit(evil, tmp_path / "results", exporter / "vit.pth")
