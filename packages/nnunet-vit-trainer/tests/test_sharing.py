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
from PIL import Image

from nnunet_vit_trainer import cli_sharing
from nnunet_vit_trainer.base_weights import load_base_weights
from nnunet_vit_trainer.checkpoints import frozen_names, trained_state
from nnunet_vit_trainer.config import ViTLoRAConfig, ViTModelConfig, ViTnnUNetConfig
from nnunet_vit_trainer.export import export_vit
from nnunet_vit_trainer.install import import_vit, model_of
from nnunet_vit_trainer.model_folder import network_of, without_paths
from nnunet_vit_trainer.plans import derive_plans
from vit_backbone import UserError, create_backbone, sha256_of

DATASET = "Dataset900_ViTDemo"
TRAINER = "nnUNetTrainerNoDeepSupervision_vit"
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "NaturalImage2DIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {"mean": 127.0, "std": 74.0}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [32, 32],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "batch_dice": True,
            **{
                f"resampling_fn_{of}{end}": value
                for of in ("data", "seg", "probabilities")
                for end, value in (("", "resample_data_or_seg_to_shape"), ("_kwargs", RESAMPLING))
            },
        }
    },
}
DATASET_JSON = {
    "channel_names": {"0": "gray"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "file_ending": ".png",
    "numTraining": 1,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The exporter's machine: a weight file, and results."""
    home = tmp_path_factory.mktemp("exporter")
    torch.manual_seed(0)
    torch.save(create_backbone("test_vit", pretrained=False)[0].state_dict(), home / "vit.pth")
    return home


def write_results(home, name="mine", weights=True, **config):
    """Write what a finished training leaves, without training: random adapters and head."""
    options = {"model": {}, "lora": {}} | config
    model = ViTModelConfig(model_path="linear", backbone="test_vit", **options["model"])
    base = {"file": str(home / "vit.pth"), "sha256": sha256_of(home / "vit.pth")}
    plans = derive_plans(
        PLANS,
        "2d",
        name,
        ViTnnUNetConfig(model=model, lora=ViTLoRAConfig(**options["lora"])),
        {"asked": "test_vit", "name": "test_vit", "options": {"img_size": 160}},
        base if weights else None,
    )
    folder = home / "results" / DATASET / f"{TRAINER}__nnUNetPlans_{name}__2d"
    fold = folder / "fold_0"
    (fold / "validation").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (folder / "dataset_fingerprint.json").write_text("{}")
    summary = {"metric_per_case": [{"reference_file": str(home / "labels" / "case_1.png")}]}
    (fold / "validation" / "summary.json").write_text(json.dumps(summary))
    (fold / "debug.json").write_text(json.dumps({"output_folder": str(fold)}))
    torch.manual_seed(1)
    network = network_of(plans, DATASET_JSON)
    load_base_weights(network, base)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": []},
        "logging": {"mean_fg_dice": [np.float32(0.5)], "lrs": [1e-3]},
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": "2d",
            "fold": 0,
            "dataset_json": DATASET_JSON,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
        "rebuilt_from": None,
    }
    torch.save(content, fold / "checkpoint_final.pth")
    small = content | {"network_weights": trained_state(network), "rebuilt_from": base}
    torch.save(small, fold / "checkpoint_best.pth")
    return folder


@pytest.fixture(scope="module")
def trained(home):
    """A trained model's folder: LoRA under the linear head."""
    return write_results(home)


def weights_of(folder, name="checkpoint_final.pth"):
    return torch.load(folder / "fold_0" / name, weights_only=False)["network_weights"]


def logits(folder, name="checkpoint_final.pth"):
    plans = json.loads((folder / "plans.json").read_text())
    network = network_of(plans, DATASET_JSON).eval()
    network.load_state_dict(weights_of(folder, name))
    torch.manual_seed(2)
    with torch.no_grad():
        return network(torch.randn(2, 1, 40, 56))


def strings(tree):
    if isinstance(tree, dict):
        return [s for key, value in tree.items() for s in (key, *strings(value))]
    if isinstance(tree, list | tuple):
        return [s for value in tree for s in strings(value)]
    return [tree] if isinstance(tree, str) else []


@pytest.mark.parametrize("form", ["whole", "merged", "adapter"])
def test_nothing_of_the_exporters_paths_gets_into_a_zip(form, trained, home, tmp_path):
    file = export_vit(trained, tmp_path / "out.zip", form=form)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "out")
    texts = [f.read_text() for f in (tmp_path / "out").rglob("*.json")]
    (checkpoint,) = (tmp_path / "out").rglob("*.pth")
    texts += strings(torch.load(checkpoint, weights_only=False))
    assert "vit.pth" in " ".join(texts)
    assert not [text for text in texts if str(home) in text]
    assert not list((tmp_path / "out").rglob("debug.json"))


def test_the_whole_is_in_nnunets_layout_and_keeps_the_optimizer(trained, tmp_path):
    file = export_vit(trained, tmp_path / "out.zip")
    with zipfile.ZipFile(file) as archive:
        names = {name.removeprefix(f"{DATASET}/{trained.name}/") for name in archive.namelist()}
        archive.extractall(tmp_path)
    assert names == {
        "plans.json",
        "dataset.json",
        "dataset_fingerprint.json",
        "fold_0/checkpoint_final.pth",
        "fold_0/validation/summary.json",
    }
    installed = tmp_path / DATASET / trained.name
    content = torch.load(installed / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert "optimizer_state" in content
    assert torch.equal(logits(installed), logits(trained))


@pytest.mark.parametrize("lora", [{}, {"dora": True}, {"rslora": True}])
def test_merged_predicts_the_same_without_adapters(lora, home, tmp_path):
    name = "lora-" + "-".join(lora)
    folder = write_results(home, name + "x", lora=lora)
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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adapters", {}),
        ("frozen", {"model": {"tune": "frozen"}}),
        ("last", {"model": {"tune": "last_2"}}),
    ],
)
def test_the_receivers_own_base_weights_complete_an_adapter(name, options, home, tmp_path):
    folder = write_results(home, name, **options)
    file = export_vit(folder, tmp_path / "out.zip", form="adapter")
    plans = json.loads((folder / "plans.json").read_text())
    with zipfile.ZipFile(file) as archive:
        inside = f"{DATASET}/{folder.name}/fold_0/checkpoint_final.pth"
        archive.extract(inside, tmp_path / "raw")
    shared = torch.load(tmp_path / "raw" / inside, weights_only=True)["network_weights"]
    assert not shared.keys() & frozen_names(network_of(plans, DATASET_JSON))
    mine = tmp_path / "my_vit.pth"
    shutil.copy(home / "vit.pth", mine)
    installed, left_out = import_vit(file, tmp_path / "results", mine)
    assert left_out == []
    expected, weights = weights_of(folder), weights_of(installed)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    plans = json.loads((installed / "plans.json").read_text())
    assert plans["vit"]["weights"]["file"] == str(mine)


def test_without_the_base_weights_their_names_are_said_and_nothing_is_installed(
    trained, home, tmp_path
):
    file = export_vit(trained, tmp_path / "out.zip", form="adapter")
    results = tmp_path / "results"
    needed = rf"test_vit, file vit\.pth, sha256 {sha256_of(home / 'vit.pth')}.*--checkpoint_path"
    with pytest.raises(UserError, match=needed):
        import_vit(file, results)
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"other\.pth has sha256"):
        import_vit(file, results, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"gone\.pth .*--checkpoint_path"):
        import_vit(file, results, tmp_path / "gone.pth")
    assert not list(results.rglob("*"))


def test_an_adapter_checkpoint_is_completed_where_stock_nnunet_could_not_load_it(trained, tmp_path):
    with pytest.raises(RuntimeError, match="Missing key"):
        logits(trained, "checkpoint_best.pth")
    file = export_vit(trained, tmp_path / "out.zip", checkpoint_name="checkpoint_best.pth")
    installed, _ = import_vit(file, tmp_path)
    assert torch.equal(logits(installed, "checkpoint_best.pth"), logits(trained))


@pytest.mark.parametrize(
    ("name", "options", "form", "message"),
    [
        ("full", {"model": {"tune": "full"}}, "merged", "no LoRA to merge"),
        ("full", {"model": {"tune": "full"}}, "adapter", "whole backbone was trained"),
        ("random", {"weights": False}, "adapter", "began with random weights"),
    ],
)
def test_what_makes_no_sense_is_refused(name, options, form, message, home, tmp_path):
    shutil.copy(home / "vit.pth", tmp_path)
    folder = write_results(tmp_path, name, **options)
    with pytest.raises(UserError, match=message):
        export_vit(folder, tmp_path / "out.zip", form=form)
    assert not (tmp_path / "out.zip").exists()


def test_a_folder_fold_or_zip_that_is_not_right_gets_one_line(trained, tmp_path):
    with pytest.raises(UserError, match=r"there is no .*plans\.json"):
        export_vit(tmp_path, tmp_path / "out.zip")
    with pytest.raises(UserError, match=r"there is no .*fold_3"):
        export_vit(trained, tmp_path / "out.zip", folds=["0", "3"])
    (tmp_path / "out.zip").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="is there already"):
        export_vit(trained, tmp_path / "out.zip")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        import_vit(tmp_path / "out.zip", tmp_path)


def test_an_installed_model_is_not_overwritten(trained, tmp_path):
    file = export_vit(trained, tmp_path / "out.zip")
    with pytest.raises(UserError, match="is there already"):
        import_vit(file, trained.parents[1])
    import_vit(file, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        f"{DATASET}/../../evil.json",
        "/etc/evil.json",
        f"{DATASET}/a__b__c/..\\evil.json",
        "C:/evil.json",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(UserError, match="would be written elsewhere"):
        model_of([f"{DATASET}/a__b__c/plans.json", name], "a.zip")


@pytest.mark.parametrize("names", [[], [f"{DATASET}/a__b__c/x", f"{DATASET}/a__b__d/x"], ["x/y/z"]])
def test_a_zip_without_exactly_one_model_is_refused(names):
    with pytest.raises(UserError, match="not one model in it"):
        model_of(names, "a.zip")


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def rewrite(source, target, **replaced):
    """Copy a zip with other contents for the files that end as named."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            key = Path(name).name.replace(".", "_")
            new.writestr(name, replaced.get(key, old.read(name)))
    return target


def test_code_in_a_checkpoint_is_not_run(trained, tmp_path):
    content = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    torch.save(content | {"more": Evil(tmp_path / "owned")}, tmp_path / "evil.pth")
    evil = rewrite(
        export_vit(trained, tmp_path / "out.zip"),
        tmp_path / "evil.zip",
        checkpoint_final_pth=(tmp_path / "evil.pth").read_bytes(),
    )
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        import_vit(evil, tmp_path / "results")
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()  # as it would have been


def test_plans_that_name_another_network_are_refused(trained, tmp_path):
    plans = json.loads((trained / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "os.system"
    file = export_vit(trained, tmp_path / "out.zip")
    evil = rewrite(file, tmp_path / "evil.zip", plans_json=json.dumps(plans))
    with pytest.raises(UserError, match=r"network 'os\.system'"):
        import_vit(evil, tmp_path / "results")


def test_paths_of_both_kinds_of_systems_are_cut():
    kept = {"b": "a/b", "c": 1, "d": "https://a/b", "e": "T: a channel"}
    tree = {"a": ["/home/me/x.pth", r"C:\Users\me\x.pth"], **kept}
    assert without_paths(tree) == {"a": ["x.pth", "x.pth"], **kept}


def call(command, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nnUNetv2", *map(str, arguments)])
        command()


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_stock_nnunet_installs_and_predicts_the_merged_as_the_imported(
    trained, home, tmp_path, monkeypatch, capsys
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

    call(cli_sharing.export, trained, tmp_path / "merged.zip", "--merged")
    call(cli_sharing.export, trained, tmp_path / "adapter.zip", "--adapter-only", "-f", "0")
    install_model_from_zip_file(str(tmp_path / "merged.zip"))
    call(cli_sharing.import_, tmp_path / "adapter.zip", "--checkpoint_path", home / "vit.pth")
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
        str(results / DATASET / trained.name), (0,), "checkpoint_final.pth"
    )
    predictor.predict_from_files_sequential(str(images), str(tmp_path / "adapter"))
    merged, adapter = (
        np.asarray(Image.open(tmp_path / f / "case.png")) for f in ("merged", "adapter")
    )
    assert len(np.unique(merged)) > 1
    assert np.array_equal(merged, adapter)
