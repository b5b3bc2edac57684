"""An import puts a whole model in its place, or nothing, whatever happens meanwhile."""

import os
import time
import zipfile
from pathlib import Path

import pytest
from trained_results import DATASET, call

from nnunet_vit_trainer.commands.import_ import import_
from nnunet_vit_trainer.sharing import install
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from vit_backbone import UserError


@pytest.fixture(scope="module")
def whole(trained_folder, tmp_path_factory):
    return export_vit(trained_folder, tmp_path_factory.mktemp("whole") / "whole.zip")


def test_two_imports_at_once_install_one_whole_model(whole, tmp_path, monkeypatch):
    """While the first one finishes, another one of the same zip is faster."""
    put, installed = install._put, []

    def slow(staging, target):
        monkeypatch.setattr(install, "_put", put)
        installed.append(import_vit(whole, tmp_path)[0])
        put(staging, target)

    monkeypatch.setattr(install, "_put", slow)
    with pytest.raises(UserError, match="is there already"):
        import_vit(whole, tmp_path)
    assert (installed[0] / "fold_0" / "checkpoint_final.pth").is_file()
    assert [folder.name for folder in tmp_path.iterdir()] == [DATASET]


def test_what_killed_imports_left_is_removed_a_day_later(whole, tmp_path):
    fresh, stale = (tmp_path / f"{install._STAGING}{name}" for name in ("fresh", "stale"))
    for folder in (fresh, stale):
        (folder / "fold_0").mkdir(parents=True)
    os.utime(stale, (time.time() - 90_000,) * 2)
    import_vit(whole, tmp_path)
    assert fresh.is_dir()
    assert not stale.exists()


@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_a_results_folder_that_cannot_be_written_is_one_line(kind, whole, tmp_path):
    if kind == "file":
        (tmp_path / DATASET).write_text("not a folder")
    else:
        (tmp_path / DATASET).symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="is not installed"):
        import_vit(whole, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [DATASET]


def test_the_command_quotes_what_a_stranger_named(trained_folder, tmp_path, monkeypatch, capsys):
    named = "Dataset900_a $(touch owned)"
    export_vit(trained_folder, tmp_path / "out.zip")
    with (
        zipfile.ZipFile(tmp_path / "out.zip") as old,
        zipfile.ZipFile(tmp_path / "b.zip", "w") as z,
    ):
        for name in old.namelist():
            z.writestr(name.replace(DATASET, named), old.read(name))
        z.writestr(f"{named}/{trained_folder.name}/postprocessing.pkl", b"")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    call(import_, tmp_path / "b.zip")
    printed = capsys.readouterr().out
    assert f"-d '{named}' -tr" in printed
    assert "Left out (not data alone): 'postprocessing.pkl'" in printed
    evil = Path(tmp_path / "evil.zip")
    evil.write_bytes(b"PK")
    with pytest.raises(SystemExit) as stopped:
        call(import_, evil)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
