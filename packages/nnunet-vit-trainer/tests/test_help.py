"""Every command: its help fits a screen and costs nothing, and shells complete its words."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

PACKAGE, ROOT = Path(__file__).parents[1], Path(__file__).parents[3]
COMMANDS = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["scripts"]
LINES, COLUMNS = 40, 80


def function_of(command):
    module, _, name = COMMANDS[command].partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_from_an_example_to_where_to_read_on(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        function_of(command)()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Example: {command}")
    assert all(line.startswith(f"         {command}") for line in lines[1 : lines.index("")])
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    (last,) = [number for number, line in enumerate(lines) if line.startswith("Read on: ")]
    told = " ".join(lines[last:]).replace(",", " ").split()
    files = [word for word in told if word.endswith(".md")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistaken_option_is_one_line(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--no-such-option"])
    with pytest.raises(SystemExit) as ended:
        function_of(command)()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{command}: ")
    assert said.count("\n") == 1


def test_a_name_whose_spaces_are_not_quoted_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "my", "photos", "-d", "42", "-n", "Eyes"])
    with pytest.raises(SystemExit):
        function_of("nnUNetv2_import_images_vit")()
    assert "photos; is it a name with spaces? Put it in quotes" in capsys.readouterr().err


def test_no_help_waits_for_what_only_the_work_needs():
    code = (
        "import importlib, sys\n"
        f"for command, place in {COMMANDS!r}.items():\n"
        "    module, _, name = place.partition(':')\n"
        "    sys.argv = [command, '--help']\n"
        "    try: getattr(importlib.import_module(module), name)()\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'peft', 'nnunetv2', 'rich', 'argcomplete'}\n"
        "sys.exit(str(heavy & set(sys.modules) or ''))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "_ARGCOMPLETE"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_shells_hook_finds_every_command(command):
    """argcomplete's global hook reads the first 1024 characters of the module for its mark."""
    file = PACKAGE / "src" / (COMMANDS[command].partition(":")[0].replace(".", "/") + ".py")
    assert "PYTHON_ARGCOMPLETE_OK" in file.read_text()[:1024]


@pytest.fixture
def complete(monkeypatch, tmp_path):
    """Ask a command, as a shell does at a TAB, what the end of a line may become."""
    monkeypatch.chdir(tmp_path)

    def complete(line):
        pytest.importorskip("argcomplete", reason="the extra [completion] is not installed")
        command = line.split()[0]
        asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer")}
        code = "import importlib, sys; getattr(importlib.import_module(sys.argv[1]), sys.argv[2])()"
        words = COMMANDS[command].split(":")
        subprocess.run([sys.executable, "-c", code, *words], env=os.environ | asked, check=True)
        answer = (tmp_path / "answer").read_text()
        (tmp_path / "answer").unlink()
        return {word.rstrip() for word in answer.split("\013")}

    return complete


def test_a_tab_completes_configs_files_and_data_sets(complete, monkeypatch, tmp_path):
    for folder in ("data/Dataset042_Mine", "data/Dataset007_Other", "rest"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "recipe.txt").touch()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "data"))
    assert complete("nnUNetv2_train_vit Dataset04") == {"Dataset042_Mine"}
    found = complete("nnUNetv2_train_vit 42 2d 0 --config rec")
    assert {"recommended", "recommended_dinov3_small", "recipe.yaml"} <= found
    assert "recipe.txt" not in found
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "data"))
    monkeypatch.delenv("nnUNet_preprocessed")
    assert complete("nnUNetv2_plan_vit Dataset00") == {"Dataset007_Other"}
    assert complete("nnUNetv2_configs_vit --show unetr_l") == {"unetr_light"}
    assert complete("nnUNetv2_predict_vit --save_p") == {"--save_probabilities"}


def test_a_tab_runs_nothing_where_argcomplete_is_not_installed(monkeypatch, tmp_path):
    """The shell's hook may be that of another Python; the demo would start at a TAB."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    demo = SimpleNamespace(run_demo=lambda folder: pytest.fail("the demo began"))
    monkeypatch.setitem(sys.modules, "nnunet_vit_trainer.demo", demo)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_demo_vit"])
    with pytest.raises(SystemExit) as ended:
        function_of("nnUNetv2_demo_vit")()
    assert ended.value.code == 1
    assert not list(tmp_path.iterdir())
