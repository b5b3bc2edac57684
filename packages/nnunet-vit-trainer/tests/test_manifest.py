"""The manifest beside predicted masks: what it says, and what a second run makes of it."""

import json
import threading
from contextlib import contextmanager

import pytest

from nnunet_vit_trainer.checkpoints.files import written_whole
from nnunet_vit_trainer.sharing.manifest import Manifest
from vit_backbone import UserError, sha256_of


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "model__a__2d" / "fold_0" / "checkpoint_final.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    return file


@pytest.fixture
def begin(checkpoint):
    def begin(manifest, *cases):
        plans = {"dataset_name": "Dataset900_X", "vit": {"versions": {"torch": "2"}}}
        command = ["nnUNetv2_predict_vit", "-i", "/home/me/my images", "-m", str(checkpoint)]
        manifest.begin(checkpoint.parent.parent, plans, [checkpoint], command, cases)

    return begin


def read(folder, name="prediction_manifest.json"):
    return json.loads((folder / name).read_text())


def test_it_says_what_made_the_masks_and_holds_no_path(tmp_path, checkpoint, begin):
    manifest = Manifest(tmp_path)
    begin(manifest, "x", "y")
    (run,) = read(tmp_path)["runs"]
    assert run["ended"] is None  # a killed run stays so
    manifest.end({"y": "/home/me/my images/y.png is broken"})
    (run,) = read(tmp_path)["runs"]
    assert run["model"]["name"] == "model__a__2d"
    assert run["model"]["checkpoints"] == [
        {"file": "fold_0/checkpoint_final.pth", "sha256": sha256_of(checkpoint)}
    ]
    assert run["command"] == [
        "nnUNetv2_predict_vit",
        "-i",
        "my images",
        "-m",
        "checkpoint_final.pth",
    ]
    assert run["cases"] == ["x", "y"]
    assert run["failed"] == {"y": "y.png is broken"}
    assert run["begun"] <= run["ended"]
    assert run["versions"]["nnunetv2"]
    assert "/home" not in (tmp_path / "prediction_manifest.json").read_text()


def test_a_second_run_is_added(tmp_path, begin):
    for case in ("x", "y"):
        manifest = Manifest(tmp_path)
        begin(manifest, case)
        manifest.end({})
    assert [run["cases"] for run in read(tmp_path)["runs"]] == [["x"], ["y"]]


def test_a_run_that_writes_at_the_same_moment_is_not_lost(tmp_path, begin, monkeypatch):
    pytest.importorskip("fcntl")
    begin(first := Manifest(tmp_path), "x")
    second = threading.Thread(target=begin, args=(Manifest(tmp_path), "y"))

    @contextmanager
    def write(file):
        """Let the other one go, after the first has read and before it has written."""
        if second.ident is None:
            second.start()
            second.join(0.5)
        with written_whole(file) as unfinished:
            yield unfinished

    monkeypatch.setattr("nnunet_vit_trainer.sharing.manifest.written_whole", write)
    first.end({})
    second.join()
    runs = read(tmp_path)["runs"]
    assert [(run["cases"], bool(run["ended"])) for run in runs] == [(["x"], True), (["y"], False)]
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.is_file()) == [".json"]


def test_shares_that_run_at_once_have_a_file_each(tmp_path, begin):
    manifests = [Manifest(tmp_path, (index, 2)) for index in range(2)]
    for manifest in manifests:
        begin(manifest)
    for index, manifest in enumerate(manifests):
        manifest.end({})
        assert len(read(tmp_path, f"prediction_manifest_{index}_of_2.json")["runs"]) == 1


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": 2, "runs": []}'])
def test_another_file_of_that_name_is_not_written_over(text, tmp_path):
    (tmp_path / "prediction_manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"prediction_manifest\.json"):
        Manifest(tmp_path)
    assert (tmp_path / "prediction_manifest.json").read_text() == text


def test_a_folder_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be read"):
        Manifest(tmp_path / "file")
