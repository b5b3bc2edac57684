"""What is shared names no folder of the machine that it comes from."""

import json
import random
import shutil
import zipfile

import numpy as np
import pytest
import torch

from nnunet_vit_trainer.checkpoints.private_paths import command_without_paths, without_paths
from nnunet_vit_trainer.sharing.export import export_vit

FOLDERS = [
    "/home/me/",
    "/home/my name/weights/",
    "/home/me/run (1)/a,b/",
    "//server/share/me/",
    "C:\\Users\\me\\",
    "C:\\Users\\my name\\",
    "D:/data/me/",
    "C:\\\\Users\\\\me\\\\",
    "\\\\server\\share\\me\\",
    "\\\\?\\C:\\Users\\me\\",
    "~/me/",
    "~me/data/",
    "../../home/me/",
    "file:///home/me/",
    "file://host/home/me/",
    "FILE:/home/me/",
    "smb://server/me/",
    "sqlite:////home/me/",
]
SENTENCES = [
    "{}",
    "loaded from {}, sha256 12",
    "loaded ({}).",
    'read "{}": fine',
    "FileNotFoundError: '{}'",
    "a={};b={}",
    "first {} then {}\nand {}",
    "weights: {}",
    "[{}]",
]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_path_in_a_sentence_is_cut_to_its_last_part(folder, sentence):
    found = without_paths(sentence.replace("{}", f"{folder}w.pth"))
    assert found in (sentence.replace("{}", "w.pth"), sentence.replace("{}", "FILE:w.pth"))


@pytest.mark.parametrize(
    ("word", "cut"),
    [
        ("-o/home/me/masks", "-omasks"),
        ("-m/home/me/my model", "-mmy model"),
        ("-idata/Meier/img.png", "-iimg.png"),
        ("--config=../Meier/a.yaml", "--config=a.yaml"),
        ("-chk=C:\\me\\a.pth", "-chk=a.pth"),
        ("data/Meier/img.png", "img.png"),
        ("data/Meier/", "Meier"),
        ("-o", "-o"),
        ("--disable_tta", "--disable_tta"),
        ("nnUNetPlans_a", "nnUNetPlans_a"),
        ("/", "/"),
    ],
)
def test_every_path_of_a_command_is_cut(word, cut):
    assert command_without_paths(["nnUNetv2_predict_vit", word]) == ["nnUNetv2_predict_vit", cut]


@pytest.mark.parametrize(
    "kept",
    [
        "a/b",
        "1/2",
        "0.5 mm/px, 1/2 of T1/T2",
        "left / right",
        "+/-3",
        "10 %/s, ~5/6 of (a)/b",
        "T: a channel",
        "24/11/2026 10:04",
        "fold_0/checkpoint_final.pth",
        "https://a.org/b/c?d=/e and http://a/b",
        "s3://bucket/key",
        "hf-hub:timm/vit_small",
        "nnunet_vit_trainer.network.build_network",
        "vit_small_patch16_dinov3_qkvb.lvd1689m",
        r"last_\d+",
        "<b>bold</b>",
        "a line\nand another",
        "",
        "/",
        "..",
    ],
)
def test_what_is_no_path_is_kept(kept):
    assert without_paths(kept) == kept


def test_a_path_alone_may_hold_any_blanks():
    assert without_paths("/home/a b c/my w.pth") == "my w.pth"
    assert without_paths("C:\\Users\\a b c\\my w.pth") == "my w.pth"
    assert without_paths("/home/me/") == "me"


def test_keys_are_cut_too_and_none_is_lost():
    tree = {"/home/me/x.png": 1, "/home/you/x.png": [{"from ~/a/y": ("/b/z", 2)}], 3: None}
    assert without_paths(tree) == {"x.png": 1, "x.png'": [{"from y": ("z", 2)}], 3: None}


def test_what_a_checkpoint_holds_beside_text_stays_what_it_is():
    state = {"python": random.Random(0).getstate(), "size": torch.Size([1, 2]), "n": np.float32(1)}
    kept = without_paths(state)
    random.Random().setstate(kept["python"])
    assert kept == state
    assert isinstance(kept["size"], torch.Size)


def test_long_text_takes_no_time():
    for text in (
        "/a b" * 20_000,
        "a " * 50_000 + "/",
        "\\" * 50_000,
        "../" * 30_000,
        "x://" * 9999,
    ):
        without_paths(text)


def strings(tree):
    if isinstance(tree, dict):
        return [s for key, value in tree.items() for s in (key, *strings(value))]
    if isinstance(tree, list | tuple):
        return [s for value in tree for s in strings(value)]
    return [tree] if isinstance(tree, str) else []


@pytest.mark.parametrize("form", ["whole", "merged", "adapter"])
def test_nothing_of_the_exporters_paths_gets_into_a_zip(form, trained_folder, exporter, tmp_path):
    file = export_vit(trained_folder, tmp_path / "out.zip", form=form)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "out")
    texts = [f.read_text() for f in (tmp_path / "out").rglob("*.json")]
    (checkpoint,) = (tmp_path / "out").rglob("*.pth")
    texts += strings(torch.load(checkpoint, weights_only=False))
    assert "vit.pth" in " ".join(texts)
    assert not [text for text in texts if str(exporter) in text]
    assert not list((tmp_path / "out").rglob("debug.json"))


def test_relative_names_of_masks_hold_no_folder_either(trained_folder, tmp_path):
    """As nnU-Net writes them where its variables are relative."""
    folder = shutil.copytree(trained_folder, tmp_path / trained_folder.name)
    case = {"reference_file": "pre/Meier/gt/x.png", "prediction_file": "res\\Meier\\x.png"}
    summary = folder / "fold_0" / "validation" / "summary.json"
    odd = {"reference_file": 3}
    summary.write_text(json.dumps({"metric_per_case": [case, odd], "mean": {}}))
    with zipfile.ZipFile(export_vit(folder, tmp_path / "out.zip")) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("summary.json"))
        found = json.loads(archive.read(name))
    cut = {"reference_file": "x.png", "prediction_file": "x.png"}
    assert found == {"metric_per_case": [cut, odd], "mean": {}}
