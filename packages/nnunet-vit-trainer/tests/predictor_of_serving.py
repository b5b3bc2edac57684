"""The predictor of docs/serving.md: the code in the document itself is what is tested."""

import ast
import sys
from types import ModuleType

from documents import ROOT, blocks_of

NAME = "predict_onnx.py"


def source():
    """Return the predictor's block."""
    blocks = blocks_of((ROOT / "docs" / "serving.md").read_text())
    (text,) = [block.text for block in blocks if block.text.startswith(f"# {NAME}:")]
    return text


def load():
    """Run the block as a module."""
    module = ModuleType("predict_onnx")
    exec(compile(source(), NAME, "exec"), vars(module))
    return module


def foreign_imports():
    """Name what it imports that Python does not bring."""
    names = set()
    for node in ast.walk(ast.parse(source())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names)
