"""A weight file is read and hashed once, as long as it stays as it is."""

import gc
import hashlib
import os
import weakref

import pytest
import torch
from safetensors.torch import save_file

from vit_backbone import WeightsError, create_backbone, load_weights, read_checkpoint, sha256_of
from vit_backbone.weights import files, once
from vit_backbone.weights.once import reading_once


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return create_backbone("test_vit", pretrained=False)[0].state_dict()


@pytest.fixture
def file(state, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, one name for each time."""
    found, read = [], files.read_file
    monkeypatch.setattr(files, "read_file", lambda file: found.append(file.name) or read(file))
    return found


@pytest.fixture
def hashes():
    """Return how often a file was hashed since."""
    before = once._sha256_in.cache_info().misses
    return lambda: once._sha256_in.cache_info().misses - before


def fill(file):
    return load_weights(create_backbone("test_vit", pretrained=False)[0], file)


def test_who_asks_twice_gets_what_was_read_first(file, reads, hashes):
    with reading_once():
        assert read_checkpoint(file) is read_checkpoint(file)
        sha256 = sha256_of(file)
        assert fill(file).sha256 == sha256
    assert reads == ["a.safetensors"]
    assert hashes() == 1


def test_nothing_is_kept_once_a_backbone_is_filled_or_the_block_ends(file, reads):
    read_checkpoint(file)
    with reading_once():
        kept = weakref.ref(read_checkpoint(file))
        fill(file)
        gc.collect()
        assert kept() is None
        kept = weakref.ref(read_checkpoint(file))
        assert kept() is not None
    gc.collect()
    assert kept() is None
    assert len(reads) == 3


def replace(file, content):
    """Put another file of the same size and date in its place."""
    new = file.with_name("new")
    new.write_bytes(content)
    stat = file.stat()
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new.replace(file)


def rewrite(file, content):
    """Write other content of the same size into it, and set its date back."""
    stat = file.stat()
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [replace, rewrite])
def test_a_file_that_has_changed_is_read_and_hashed_anew(change, state, file, tmp_path):
    save_file({n: t + 1 if n == "norm.bias" else t for n, t in state.items()}, tmp_path / "b")
    with reading_once():
        before = read_checkpoint(file).tensors["norm.bias"].clone()
        sha256 = sha256_of(file)
        change(file, (tmp_path / "b").read_bytes())
        assert torch.equal(read_checkpoint(file).tensors["norm.bias"], before + 1)
        assert sha256_of(file) != sha256
        assert fill(file).sha256 == sha256_of(tmp_path / "b")


def test_a_shard_that_has_changed_counts_too(state, tmp_path, reads):
    names = sorted(state)
    index = {"weight_map": {n: f"{i % 2}.safetensors" for i, n in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(str(index).replace("'", '"'))
    for i in range(2):
        save_file({n: state[n] for n in names[i::2]}, tmp_path / f"{i}.safetensors")
    with reading_once():
        for _ in range(2):
            read_checkpoint(tmp_path)
        assert len(reads) == 2
        sha256 = sha256_of(tmp_path)
        save_file({n: state[n] + 1 for n in names[1::2]}, tmp_path / "1.safetensors")
        read_checkpoint(tmp_path)
        assert len(reads) == 4
        assert sha256_of(tmp_path) != sha256


def test_a_file_that_goes_is_not_taken_from_memory(file):
    with reading_once():
        read_checkpoint(file)
        sha256_of(file)
        file.unlink()
        with pytest.raises(OSError, match="No such file"):
            sha256_of(file)
        with pytest.raises(WeightsError, match="cannot be read"):
            read_checkpoint(file)


def test_a_link_and_what_it_leads_to_are_one_file(file, tmp_path, reads, hashes):
    """The hub's cache is one of links, and plans name the file itself."""
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    with reading_once():
        assert read_checkpoint(link) is read_checkpoint(file)
    assert sha256_of(link) == sha256_of(file)
    assert (len(reads), hashes()) == (1, 1)


def test_what_is_hashed_ahead_is_waited_for_and_not_hashed_again(file, tmp_path, hashes):
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    once.hash_ahead(file)
    assert sha256_of(file) == expected
    assert hashes() == 1
    assert not once._begun


def test_a_file_that_is_replaced_meanwhile_is_hashed_anew(file):
    once.hash_ahead(file)
    file.write_bytes(b"another")
    assert sha256_of(file) == hashlib.sha256(b"another").hexdigest()
    once._begun.clear()


def test_what_cannot_be_hashed_ahead_is_said_where_it_is_asked_for(tmp_path, capfd):
    once.hash_ahead(tmp_path / "nothing")
    once.hash_ahead(tmp_path)  # a folder
    for thread in [*once._begun.values()]:
        thread.join()
    once._begun.clear()
    assert capfd.readouterr().err == ""
