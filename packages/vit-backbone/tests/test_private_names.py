"""Every private name of timm and torch that is used: why, and whether it is still there.

Their next release may rename it without a word: an override would never be called, and an
attribute that is set under the old name never be read.
"""

import ast
import inspect
from pathlib import Path

import pytest
import timm
import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models.vision_transformer import VisionTransformer

import vit_backbone

OVERRIDDEN = {
    "_create_embed": (RotaryEmbeddingDinoV3, "DINOv3's RoPE, traceable for any grid"),
    "_pos_embed": (VisionTransformer, "DINOv2's own resampling of the position embedding"),
}
PRIVATE = {
    "_get_pos_embed_from_coords": (RotaryEmbeddingDinoV3, "called by `_create_embed`"),
    "_linear_pointwise": (torch.ops.mkldnn, "oneDNN's product with weights that are laid out"),
    "_forward_hooks": (torch.nn.Identity(), "layers with hooks are not packed"),
    "_forward_pre_hooks": (torch.nn.Identity(), "layers with hooks are not packed"),
    "_backward_hooks": (torch.nn.Identity(), "layers with hooks are called, not folded"),
    "_backward_pre_hooks": (torch.nn.Identity(), "layers with hooks are called, not folded"),
    "_subclasses": (torch, "where torch has fake tensors, for tests without a CUDA device"),
}


def names_of_others():
    """List private names that sources use and do not define."""
    used, own = set(), set()
    files = Path(vit_backbone.__file__).parent.rglob("*.py")
    for node in (n for f in files for n in ast.walk(ast.parse(f.read_text(encoding="utf-8")))):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                used.add(name)
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ):
                used.add(name)
            case ast.ImportFrom(module=module, names=aliases):
                used |= {*(module or "").split("."), *(alias.name for alias in aliases)}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(attr=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
    return {n for n in used - own if n.startswith("_") and not n.startswith("__")}


def overridden_names():
    """List the private methods of classes that inherit from timm's."""
    bases = {owner.__name__ for owner, _ in OVERRIDDEN.values()}
    files = Path(vit_backbone.__file__).parent.rglob("*.py")
    classes = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and bases & {ast.unparse(base) for base in node.bases}
    ]
    methods = [m.name for c in classes for m in c.body if isinstance(m, ast.FunctionDef)]
    return {name for name in methods if name.startswith("_") and not name.startswith("__")}


def test_each_private_name_that_is_used_says_why():
    assert names_of_others() == PRIVATE.keys()
    assert overridden_names() == OVERRIDDEN.keys()


@pytest.mark.parametrize("name", [*PRIVATE, *OVERRIDDEN])
def test_it_is_still_there(name):
    owner, why = (PRIVATE | OVERRIDDEN)[name]
    assert hasattr(owner, name), f"{owner} has no {name} any more: {why}"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_override_is_still_called(name):
    owner, why = OVERRIDDEN[name]
    source = inspect.getsource(inspect.getmodule(owner))
    assert f"self.{name}(" in source, f"timm does not call {owner.__name__}.{name} any more: {why}"


def test_evas_attention_still_asks_how_its_bias_is_added():
    """Set on every block that has it: without, LoRA on DINOv3's qkv would train nothing."""
    model = timm.create_model("vit_small_patch16_dinov3_qkvb", pretrained=False, depth=1)
    attention = model.blocks[0].attn
    assert hasattr(attention, "qkv_bias_separate"), "timm has no qkv_bias_separate any more"
    assert "self.qkv_bias_separate" in inspect.getsource(type(attention).forward)
