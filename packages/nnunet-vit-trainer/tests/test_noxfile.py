"""What the project's noxfile does to files of the checkout; nox itself is not needed."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

NOXFILE = Path(__file__).parents[3] / "noxfile.py"


@pytest.fixture
def noxfile(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nox", MagicMock())
    spec = importlib.util.spec_from_file_location("noxfile_here", NOXFILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "uv.lock").write_text("before")
    return module


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_lock_is_there_after_uv_failed(noxfile, tmp_path, error):
    def run(*arguments, **_):
        assert not (tmp_path / "uv.lock").exists()  # it resolves from scratch
        (tmp_path / "uv.lock").write_text("half")
        raise error

    with pytest.raises(error):
        noxfile.write_lock(SimpleNamespace(run=run), str(tmp_path / "requirements.lock"))
    assert (tmp_path / "uv.lock").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["uv.lock"]


def test_what_a_killed_run_put_aside_is_put_back(noxfile, tmp_path):
    (tmp_path / "uv.lock").rename(tmp_path / "uv.lock.before")
    (tmp_path / "uv.lock").write_text("half, since uv was killed")

    def run(*arguments, **_):
        assert not (tmp_path / "uv.lock").exists()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        noxfile.write_lock(SimpleNamespace(run=run), str(tmp_path / "requirements.lock"))
    assert (tmp_path / "uv.lock").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["uv.lock"]


def test_a_new_lock_replaces_the_one_before(noxfile, tmp_path):
    def run(*arguments, **_):
        if arguments[1] == "lock":
            (tmp_path / "uv.lock").write_text("new")

    noxfile.write_lock(SimpleNamespace(run=run), str(tmp_path / "requirements.lock"))
    assert (tmp_path / "uv.lock").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["uv.lock"]


def test_the_lock_that_is_checked_keeps_its_versions_though_the_index_shows_newer(
    noxfile, tmp_path
):
    lock = 'one==1.2 \\\n    --hash=sha256:0\ntwo==1 ; python_version < "4"\ntwo==2.0.post1\n'
    held = noxfile.held_versions(lock)
    assert held == ["one==1.2"]
    ran = []
    session = SimpleNamespace(run=lambda *arguments, **_: ran.append(arguments))
    (tmp_path / "uv.lock").unlink()
    noxfile.write_lock(session, "out", *held)
    assert ran[0] == ("uv", "lock", "--upgrade-package=one==1.2")
