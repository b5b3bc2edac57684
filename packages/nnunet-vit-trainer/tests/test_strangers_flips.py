"""An export with a byte changed anywhere is refused in one line, or installed whole and right."""

import json
import random
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from nnunet_vit_trainer.sharing.archive import unpack
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from vit_backbone import UserError


@pytest.fixture(scope="module")
def whole(trained_folder, tmp_path_factory):
    return export_vit(trained_folder, tmp_path_factory.mktemp("whole") / "whole.zip")


def contents_of(folder):
    """Read every file that was installed."""
    read = {
        ".pth": lambda file: torch.load(file, weights_only=False),
        ".json": lambda file: json.loads(file.read_text()),
    }
    return {
        file.relative_to(folder).as_posix(): read.get(file.suffix, Path.read_text)(file)
        for file in folder.rglob("*")
        if file.is_file()
    }


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other


@pytest.fixture(scope="module")
def right(whole, tmp_path_factory):
    return contents_of(import_vit(whole, tmp_path_factory.mktemp("right"))[0])


def regions(file):
    """Name where a zip has its headers, its small files, and all of it, as ranges of bytes."""
    with zipfile.ZipFile(file) as archive:
        members, directory = archive.infolist(), archive.start_dir
    headers = [(m.header_offset, m.header_offset + 30 + len(m.filename)) for m in members]
    small = [(m.header_offset, m.header_offset + m.compress_size) for m in members
             if not m.filename.endswith(".pth")]  # fmt: skip
    content = file.read_bytes()
    return content, [headers, small, [(directory, len(content))], [(0, len(content))]]


def flip_often(times, whole, right, folder):
    content, places = regions(whole)
    dice, counted = random.Random(1), Counter()
    evil, results = folder / "evil.zip", folder / "results"
    for _ in range(times):
        start, end = dice.choice(dice.choice(places))
        changed = bytearray(content)
        changed[dice.randrange(start, end)] ^= dice.randrange(1, 256)
        evil.write_bytes(changed)
        counted[outcome(evil, results / str(sum(counted.values())), right)] += 1
    assert counted["refused"] > times / 2
    return counted


def outcome(evil, results, right):
    said = ""
    try:
        folder, left_out = import_vit(evil, results)
    except UserError as error:
        said = str(error)
    assert len(said) <= 500
    assert said.isprintable()
    if said:
        assert said.startswith(str(evil))
        assert not results.exists() or not any(results.iterdir())
        return "refused"
    assert not left_out
    assert equal(contents_of(folder), right)
    assert [path.name for path in results.iterdir()] == [folder.parent.name]
    return "installed whole and right"


def test_some_changed_bytes(whole, right, tmp_path):
    flip_often(40, whole, right, tmp_path)


@pytest.mark.torture
def test_a_thousand_changed_bytes(whole, right, tmp_path, record_property):
    counted = flip_often(1000, whole, right, tmp_path)
    record_property("flips", dict(counted))


@pytest.mark.parametrize("last", ["i", "/"])
def test_a_member_whose_name_was_damaged_is_not_left_out_in_silence(last, whole, tmp_path):
    """There would be a fold less, and nobody would know."""
    evil = tmp_path / "evil.zip"
    evil.write_bytes(whole.read_bytes())
    with zipfile.ZipFile(evil, "a") as archive:
        first = next(n for n in archive.namelist() if n.endswith("fold_0/checkpoint_final.pth"))
        second = first.replace("fold_0", "fold_1")
        archive.writestr(second, archive.read(first))
    assert len(list(import_vit(evil, tmp_path / "good")[0].glob("fold_*"))) == 2
    before, name, after = evil.read_bytes().rpartition(second.encode())
    evil.write_bytes(before + name[:-1] + last.encode() + after)
    with pytest.raises(UserError, match="cannot be read as a zip"):
        import_vit(evil, tmp_path / "results")


def test_sizes_that_are_declared_too_large_are_refused_before_anything_is_written(whole, tmp_path):
    with zipfile.ZipFile(whole) as archive:
        member = archive.infolist()[0]
        member.file_size = 1 << 40
        with pytest.raises(UserError, match="unpacks to more than"):
            unpack(archive, {"a/x.json": member}, tmp_path, 10**9)
    assert not list(tmp_path.iterdir())


def test_no_empty_folder_of_a_data_set_stays_where_the_disk_refuses(whole, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=r"is not installed: .*No space left"):
        import_vit(whole, tmp_path / "results")
    assert not list((tmp_path / "results").iterdir())
