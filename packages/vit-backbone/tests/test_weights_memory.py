"""Loading takes memory for the backbone, not for the file beside it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vit_backbone import create_backbone

HERE = Path(__file__).parent
NAME = "vit_small_patch16_224"  # 87 MB


def in_parts(tensors):
    """Keep q, k and v apart, as Hugging Face's files do."""
    parts = {}
    for name, tensor in tensors.items():
        if ".qkv." in name:
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                parts[name.replace(".qkv.", f".{part}_proj.")] = value.clone()
        else:
            parts[name] = tensor
    return parts


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same weights as files of every kind; in one of them a second model lies beside."""
    torch.manual_seed(0)
    tensors = create_backbone(NAME, pretrained=False)[0].state_dict()
    folder = tmp_path_factory.mktemp("weights")
    save_file(tensors, folder / "a.safetensors")
    torch.save(tensors, folder / "a.pth")
    student = {name: tensor.clone() for name, tensor in tensors.items()}
    torch.save({"teacher": tensors, "student": student}, folder / "two.pth")
    save_file(in_parts(tensors), folder / "parts.safetensors")
    torch.save(tensors, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.torture
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "most"),
    # Torch's format from before version 1.6 cannot be mapped, so it is held beside the backbone.
    [
        ("a.safetensors", 1.2),
        ("a.pth", 1.2),
        ("two.pth", 1.2),
        ("parts.safetensors", 1.2),
        ("legacy.pth", 2.2),
    ],
)
def test_a_file_takes_its_backbone_and_a_fifth_more(name, most, files, record_property):
    command = [sys.executable, str(HERE / "load_and_measure.py"), NAME, str(files / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, own = map(int, done.stdout.split())
    record_property(name, f"{taken / own:.2f}")
    assert taken <= most * own
