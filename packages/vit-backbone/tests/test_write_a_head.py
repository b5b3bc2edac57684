"""The head of docs/write-a-head.md, as it stands there, passes the suite that it inherits."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "write-a-head.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the document's files where it says they go."""
    folder = tmp_path_factory.mktemp("stranger")
    for name, text in re.findall(r"```\w+\n# (\S+)[^\n]*\n(.*?)```", DOCUMENT.read_text(), re.S):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_documents_head_is_short(folder):
    lines = [
        line
        for file in ("my_head/__init__.py", "my_head/head.py")
        for line in (folder / file).read_text().splitlines()
        if line.strip()
    ]
    assert len(lines) < 60


@pytest.mark.slow
def test_the_documents_head_passes_the_suite(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests", "-p", "no:cacheprovider"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"\d\d passed", done.stdout)


def test_the_documents_head_is_found_by_its_module_name(folder, monkeypatch):
    import torch

    from vit_backbone import find_head, head_options

    monkeypatch.syspath_prepend(str(folder))
    (folder / "my").mkdir(exist_ok=True)
    (folder / "my" / "head.py").write_text("from my_head import create_segmentation_model\n")
    assert list(head_options(find_head("my_head"))) == ["width"]
    factory = find_head("my.head")
    assert list(head_options(factory)) == ["width"]
    model = factory("test_vit", num_classes=2, pretrained=False, width=8)
    assert model(torch.randn(1, 3, 20, 33)).shape == (1, 2, 20, 33)
