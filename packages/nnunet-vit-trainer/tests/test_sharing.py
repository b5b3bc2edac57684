"""Export a model here, install it there, predict with stock nnU-Net."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import masks_agree
from PIL import Image
from trained_results import (
    DATASET,
    DATASET_JSON,
    TRAINER,
    Evil,
    call,
    logits,
    rewrite,
    weights_of,
    write_results,
)

from nnunet_vit_trainer.checkpoints.content import frozen_names
from nnunet_vit_trainer.checkpoints.model_folder import network_of
from nnunet_vit_trainer.commands.export import export
from nnunet_vit_trainer.commands.import_ import import_
from nnunet_vit_trainer.sharing.contents import model_of
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from vit_backbone import UserError, sha256_of


def test_the_whole_is_in_nnunets_layout_and_keeps_the_optimizer(trained_folder, tmp_path):
    file = export_vit(trained_folder, tmp_path / "out.zip")
    with zipfile.ZipFile(file) as archive:
        names = {
            name.removeprefix(f"{DATASET}/{trained_folder.name}/") for name in archive.namelist()
        }
        archive.extractall(tmp_path)
    assert names == {
        "plans.json",
        "dataset.json",
        "dataset_fingerprint.json",
        "README.md",
        "CITATION.bib",
        "fold_0/checkpoint_final.pth",
        "fold_0/validation/summary.json",
    }
    installed = tmp_path / DATASET / trained_folder.name
    content = torch.load(installed / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert "optimizer_state" in content
    assert torch.equal(logits(installed), logits(trained_folder))


def test_a_second_data_set_of_the_number_is_told(tmp_path, monkeypatch, capsys):
    """nnU-Net takes none of the two by the number any more, whatever it is asked for."""
    folder = tmp_path / "results" / DATASET / "T__P__2d"
    monkeypatch.setattr(
        "nnunet_vit_trainer.sharing.install.import_vit", lambda *_, **__: (folder, [])
    )
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    (tmp_path / "raw" / DATASET).mkdir()
    call(import_, "some.zip")
    assert "same number" not in capsys.readouterr().out
    mine = DATASET[:10] + "_Mine"
    (tmp_path / "preprocessed" / mine).mkdir()
    call(import_, "some.zip")
    assert f"There is '{mine}' of the same number" in capsys.readouterr().out


def test_the_commands_for_what_was_installed_name_its_checkpoint_and_stack(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / DATASET / "T__P l__2d"
    monkeypatch.setattr(
        "nnunet_vit_trainer.sharing.install.import_vit", lambda *_, **__: (folder, [])
    )
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    for fold in ("fold_1", "fold_0"):
        (folder / fold).mkdir(parents=True)
        (folder / fold / "checkpoint_best.pth").touch()
    (folder / "dataset.json").write_text('{"neighbours": {"count": 1, "axis": 0}}')
    call(import_, "some.zip")
    stack, predict = capsys.readouterr().out.splitlines()[-2:]
    assert stack == f"  nnUNetv2_neighbours_vit -i IMAGES -o STACKED -m '{folder}'"
    of = f"-d {DATASET} -tr T -p 'P l' -c 2d -f 0 1"
    assert predict == f"  nnUNetv2_predict {of} -i STACKED -o OUTPUT -chk checkpoint_best.pth"
    (folder / "fold_0" / "checkpoint_final.pth").touch()
    call(import_, "some.zip")
    assert "-chk" not in capsys.readouterr().out


@pytest.mark.parametrize("lora", [{}, {"dora": True}, {"rslora": True}])
def test_merged_predicts_the_same_without_adapters(lora, exporter, tmp_path):
    name = "lora-" + "-".join(lora)
    folder = write_results(exporter, name + "x", lora=lora)
    export_vit(folder, tmp_path / "out.zip", form="merged")
    installed, _ = import_vit(tmp_path / "out.zip", tmp_path)
    assert installed.name == f"{TRAINER}__nnUNetPlans_{name}x_merged__2d"
    content = torch.load(installed / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert not [key for key in content["network_weights"] if "lora" in key or "base_layer" in key]
    assert "optimizer_state" not in content
    arguments = content["init_args"]["plans"]["configurations"]["2d"]["architecture"]
    assert arguments["arch_kwargs"]["use_lora"] is False
    assert (logits(installed) - logits(folder)).abs().max() < 1e-4
    unadapted = weights_of(folder)["backbone.blocks.0.attn.qkv.base_layer.weight"]
    merged = content["network_weights"]["backbone.blocks.0.attn.qkv.weight"]
    assert (merged - unadapted).abs().max() > 1e-3
    with pytest.raises(UserError, match="LoRA is folded into these weights"):
        export_vit(installed, tmp_path / "again.zip", form="adapter")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adapters", {}),
        ("frozen", {"model": {"tune": "frozen"}}),
        ("last", {"model": {"tune": "last_2"}}),
    ],
)
def test_the_receivers_own_base_weights_complete_an_adapter(name, options, exporter, tmp_path):
    folder = write_results(exporter, name, **options)
    file = export_vit(folder, tmp_path / "out.zip", form="adapter")
    plans = json.loads((folder / "plans.json").read_text())
    with zipfile.ZipFile(file) as archive:
        inside = f"{DATASET}/{folder.name}/fold_0/checkpoint_final.pth"
        archive.extract(inside, tmp_path / "raw")
    shared = torch.load(tmp_path / "raw" / inside, weights_only=True)["network_weights"]
    assert not shared.keys() & frozen_names(network_of(plans, DATASET_JSON))
    mine = tmp_path / "my_vit.pth"
    shutil.copy(exporter / "vit.pth", mine)
    installed, left_out = import_vit(file, tmp_path / "results", mine)
    assert left_out == []
    expected, weights = weights_of(folder), weights_of(installed)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    plans = json.loads((installed / "plans.json").read_text())
    assert plans["vit"]["weights"]["file"] == str(mine)


def test_without_the_base_weights_their_names_are_said_and_nothing_is_installed(
    trained_folder, exporter, tmp_path
):
    file = export_vit(trained_folder, tmp_path / "out.zip", form="adapter")
    results = tmp_path / "results"
    needed = (
        rf"test_vit, file vit\.pth, sha256 {sha256_of(exporter / 'vit.pth')}.*--checkpoint_path"
    )
    with pytest.raises(UserError, match=needed):
        import_vit(file, results)
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"other\.pth has sha256"):
        import_vit(file, results, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"gone\.pth .*--checkpoint_path"):
        import_vit(file, results, tmp_path / "gone.pth")
    assert not list(results.rglob("*"))


def test_an_adapter_checkpoint_is_completed_where_stock_nnunet_could_not_load_it(
    trained_folder, tmp_path
):
    with pytest.raises(RuntimeError, match="Missing key"):
        logits(trained_folder, "checkpoint_best.pth")
    file = export_vit(trained_folder, tmp_path / "out.zip", checkpoint_name="checkpoint_best.pth")
    installed, _ = import_vit(file, tmp_path)
    assert torch.equal(logits(installed, "checkpoint_best.pth"), logits(trained_folder))


@pytest.mark.parametrize(
    ("name", "options", "form", "message"),
    [
        ("full", {"model": {"tune": "full"}}, "merged", "no LoRA to merge"),
        ("full", {"model": {"tune": "full"}}, "adapter", "whole backbone was trained"),
        ("random", {"weights": False}, "adapter", "began with random weights"),
    ],
)
def test_what_makes_no_sense_is_refused(name, options, form, message, exporter, tmp_path):
    shutil.copy(exporter / "vit.pth", tmp_path)
    folder = write_results(tmp_path, name, **options)
    with pytest.raises(UserError, match=message):
        export_vit(folder, tmp_path / "out.zip", form=form)
    assert not (tmp_path / "out.zip").exists()


def test_a_folder_fold_or_zip_that_is_not_right_gets_one_line(trained_folder, tmp_path):
    with pytest.raises(UserError, match=r"there is no .*plans\.json"):
        export_vit(tmp_path, tmp_path / "out.zip")
    with pytest.raises(UserError, match=r"there is no .*fold_3"):
        export_vit(trained_folder, tmp_path / "out.zip", folds=["0", "3"])
    (tmp_path / "out.zip").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="is there already"):
        export_vit(trained_folder, tmp_path / "out.zip")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        import_vit(tmp_path / "out.zip", tmp_path)


def test_an_installed_model_is_not_overwritten(trained_folder, tmp_path):
    file = export_vit(trained_folder, tmp_path / "out.zip")
    with pytest.raises(UserError, match="is there already"):
        import_vit(file, trained_folder.parents[1])
    import_vit(file, tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [],
        [f"{DATASET}/a__b__c/x", f"{DATASET}/a__b__d/x"],
        ["x/y/z"],
        [f"{DATASET}/a__b__c__d/x"],  # nnU-Net splits it at "__", into three
        [f"{DATASET}/a____c/x"],
        ["Dataset\uff19\uff10\uff10_a/a__b__c/x"],  # digits, of full width
    ],
)
def test_a_zip_without_exactly_one_model_is_refused(names):
    with pytest.raises(UserError, match="not one model in it"):
        model_of(names, "a.zip")


def test_code_in_a_checkpoint_is_not_run(trained_folder, tmp_path):
    content = torch.load(trained_folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    torch.save(content | {"more": Evil(tmp_path / "owned")}, tmp_path / "evil.pth")
    evil = rewrite(
        export_vit(trained_folder, tmp_path / "out.zip"),
        tmp_path / "evil.zip",
        checkpoint_final_pth=(tmp_path / "evil.pth").read_bytes(),
    )
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        import_vit(evil, tmp_path / "results")
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()  # as it would have been


def test_plans_that_name_another_network_are_refused(trained_folder, tmp_path):
    plans = json.loads((trained_folder / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "os.system"
    file = export_vit(trained_folder, tmp_path / "out.zip")
    evil = rewrite(file, tmp_path / "evil.zip", plans_json=json.dumps(plans))
    with pytest.raises(UserError, match=r"network 'os\.system'"):
        import_vit(evil, tmp_path / "results")


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_stock_nnunet_installs_and_predicts_the_merged_as_the_imported(
    trained_folder, exporter, tmp_path, monkeypatch, capsys
):
    """One fresh process with stock's merged model; the imported adapter in this one."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("nnUNet_results", str(results))
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(images / "case_0000.png")

    call(export, trained_folder, tmp_path / "merged.zip", "--merged")
    call(export, trained_folder, tmp_path / "adapter.zip", "--adapter-only", "-f", "0")
    install_model_from_zip_file(str(tmp_path / "merged.zip"))
    call(import_, tmp_path / "adapter.zip", "--checkpoint_path", exporter / "vit.pth")
    printed = capsys.readouterr().out
    assert f"-tr {TRAINER} -p nnUNetPlans_mine -c 2d -f 0" in printed

    clean = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "nnUNetv2_predict"),
            *f"-d {DATASET} -tr {TRAINER} -p nnUNetPlans_mine_merged -c 2d -f 0".split(),
            *f"-i {images} -o {tmp_path / 'merged'} -device cpu -npp 0 -nps 0".split(),
        ],
        env=clean | {"nnUNet_results": str(results)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "adapter").mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(
        str(results / DATASET / trained_folder.name), (0,), "checkpoint_final.pth"
    )
    predictor.predict_from_files_sequential(str(images), str(tmp_path / "adapter"))
    merged, adapter = (
        np.asarray(Image.open(tmp_path / f / "case.png")) for f in ("merged", "adapter")
    )
    assert len(np.unique(merged)) > 1
    assert masks_agree(merged, adapter)
