"""nnUNetv2_configs_vit: what it lists, shows and writes, and what it refuses."""

import sys
from pathlib import Path

import pytest
import yaml

from nnunet_vit_trainer.commands.configs import configs
from nnunet_vit_trainer.config import catalogue
from nnunet_vit_trainer.config.catalogue import shipped_configs, shipped_file

NAME = "recommended_dinov3_small"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nnUNetv2_configs_vit", *words])
        try:
            configs()
        except SystemExit as ended:
            return ended.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return run


def test_the_list_names_every_config_within_80_columns(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, said = run("--list")
    assert code == 0
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(shipped_configs())]] == shipped_configs()
    assert max(map(len, lines)) <= 80
    assert "…" not in said
    assert lines[0].split() == ["name", "ViT", "M", "GFLOP", "head", "licence", "weights"]


@pytest.mark.parametrize("name", shipped_configs())
def test_one_is_shown_as_it_is_shipped(name, run):
    assert run("--show", name) == (0, shipped_file(name).read_text())


@pytest.mark.parametrize("flag", ["--show", "--write"])
def test_an_unknown_name_gets_the_nearest(flag, run):
    code, said = run(flag, "recomended_dinov2_smal")
    assert code == 2
    assert said.count("\n") == 1
    assert "did you mean 'recommended_dinov2_small'?" in said
    assert "see nnUNetv2_configs_vit --list" in run(flag, "something else")[1]
    assert not list(Path().iterdir())


def test_a_copy_is_named_after_the_config(run):
    code, said = run("--write", NAME)
    assert code == 0
    assert said.startswith(f"Written: {NAME}.yaml\n")
    assert said.endswith(f" --config {NAME}.yaml\n")
    text = Path(f"{NAME}.yaml").read_text()
    assert f"--config {NAME}.yaml\n" in text  # else its own command would train the shipped one
    assert text.replace(f"--config {NAME}.yaml\n", f"--config {NAME}\n") == (
        shipped_file(NAME).read_text()
    )


def test_a_copy_may_lie_elsewhere_and_its_command_finds_it(run):
    Path("my configs").mkdir()
    assert run("--write", "unetr", "my configs/mine.yaml")[0] == 0
    assert "--config 'my configs/mine.yaml'\n" in Path("my configs/mine.yaml").read_text()
    Path("a\n model: 3").mkdir()
    assert run("--write", "unetr", "a\n model: 3/mine.yaml")[0] == 0
    assert "--config mine.yaml\n" in Path("a\n model: 3/mine.yaml").read_text()


@pytest.mark.parametrize(
    "file",
    [
        "w.pth",
        "two words # of it.pth",
        'a "quote": \\.pth',
        "\u00fc \U0001d11e\u202f.pth",
        "line\nbreak",
        "*",
    ],
)
def test_a_weight_file_is_filled_in_whatever_its_name(file, run, tmp_path):
    Path(file).touch()
    assert run("--write", "recommended_visionfm_fundus", "--checkpoint_path", file)[0] == 0
    written = yaml.safe_load(Path("recommended_visionfm_fundus.yaml").read_text())
    shipped = yaml.safe_load(shipped_file("recommended_visionfm_fundus").read_text())
    assert written["model"].pop("checkpoint_path") == str(tmp_path / file)
    assert shipped["model"].pop("checkpoint_path") == "VFM_Fundus_weights.pth"
    assert written == shipped


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([NAME, "there.yaml"], "there.yaml is there already"),
        ([NAME, "link.yaml"], "link.yaml is there already"),
        ([NAME, "folder"], "folder is there already"),
        ([NAME, "nowhere/mine.yaml"], "nowhere/mine.yaml cannot be written: No such file"),
        ([NAME, "there.yaml/mine.yaml"], "cannot be written: Not a directory"),
        ([NAME, "two words.yaml"], "up to 100 letters"),
        ([NAME, "a__b.yaml"], "up to 100 letters"),
        ([NAME, "mine_ds.yaml"], "'_ds' is kept"),
        ([NAME, "--checkpoint_path", "gone.pth"], "gone.pth' is not there"),
        ([NAME, "--checkpoint_path", ""], "--checkpoint_path '' is not there"),
        (["unetr_tiny", "--checkpoint_path", "there.yaml"], "trains from scratch"),
        ([NAME, "--checkpoint_path", "half\udcff.pth"], "no text file can hold this name"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_nothing_changes(words, said, run):
    Path("there.yaml").write_text("mine")
    Path("link.yaml").symlink_to("to nothing")
    Path("folder").mkdir()
    Path("half\udcff.pth").touch()
    before = sorted(Path().iterdir())
    code, told = run("--write", *words)
    assert (code, told.count("\n")) == (2, 1)
    assert said in told
    assert sorted(Path().iterdir()) == before
    assert Path("there.yaml").read_text() == "mine"


def test_nothing_is_left_of_a_write_that_fails(run, monkeypatch):
    half = catalogue.read_shipped(NAME)._replace(text="no file can hold \udcff")
    monkeypatch.setattr(catalogue, "read_shipped", lambda name: half)
    code, told = run("--write", NAME)
    assert (code, told.count("\n")) == (2, 1)
    assert f"{NAME}.yaml cannot be written: " in told
    assert not list(Path().iterdir())


@pytest.mark.parametrize("words", [["--list", "mine.yaml"], ["--show", NAME, "mine.yaml"]])
def test_a_file_without_write_is_refused(words, run):
    code, told = run(*words)
    assert code == 2
    assert "go with --write NAME" in told


@pytest.mark.parametrize("words", [[], ["--list", "--show", NAME], ["--show"], ["--what"]])
def test_a_call_that_cannot_be_meant_is_one_line(words, run):
    code, told = run(*words)
    assert (code, told.count("\n")) == (2, 1)
    assert "--help begins with an example" in told
