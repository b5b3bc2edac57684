"""The model card: of results, of exports that nobody opens, of configs; and in every export."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fake_results import write_fold
from trained_results import DATASET, TRAINER, Evil, call, rewrite, write_results

from nnunet_vit_trainer.checkpoints.releases import family_of, release_of
from nnunet_vit_trainer.commands.import_ import import_
from nnunet_vit_trainer.commands.info import info
from nnunet_vit_trainer.config.reading import shipped_configs
from nnunet_vit_trainer.results.card.config import card_of_config
from nnunet_vit_trainer.results.card.folder import card_of_folder, members_of
from nnunet_vit_trainer.results.card.papers import bibtex_of, papers_of
from nnunet_vit_trainer.results.card.reading import Dataset, read_as
from nnunet_vit_trainer.results.card.schema import ModelCard
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from nnunet_vit_trainer.sharing.look import card_of_zip
from vit_backbone import UserError, sha256_of

NAME = f"{TRAINER}__nnUNetPlans_carded__2d"


@pytest.fixture(scope="module")
def folder(exporter):
    """A finished fold 0, validated, and the begun fold 1."""
    folder = write_results(exporter, "carded")
    (folder / "fold_0" / "validation" / "summary.json").unlink()
    (folder / "fold_0" / "validation").rmdir()
    (folder / "fold_0").rename(folder / "fold_9")
    fold = write_fold(folder, 0, {"case_1": [0.5, 0.7], "case_2": [0.7, None]}, finished=False)
    for file in (folder / "fold_9").iterdir():
        file.rename(fold / file.name)
    (folder / "fold_9").rename(folder / "fold_1")
    return folder


@pytest.fixture(scope="module")
def export(folder, tmp_path_factory):
    return export_vit(folder, tmp_path_factory.mktemp("carded") / "model.zip")


def member(file, name):
    with zipfile.ZipFile(file) as archive:
        return archive.read(f"{DATASET}/{NAME}/{name}").decode()


def test_an_ignore_label_that_is_not_used_is_no_fault_of_a_card():
    labels = {"background": 0, "a": 1, "ignore": None}
    assert read_as(Dataset, {"labels": labels}, "dataset.json").labels == labels


def test_a_card_says_what_the_plans_and_summaries_of_a_folder_say(folder, exporter):
    card = card_of_folder(folder)
    assert (card.kind, card.name, card.trainer) == ("results", NAME, TRAINER)
    assert (card.plans, card.configuration) == ("nnUNetPlans_carded", "2d")
    assert (card.backbone.name, card.backbone.tuned, card.backbone.family) == (
        "test_vit",
        "lora",
        None,
    )
    assert card.weights.sha256 == sha256_of(exporter / "vit.pth")
    assert (card.weights.file, card.weights.licence) == ("vit.pth", None)
    assert card.head.name == "linear"
    assert card.data.channels == ["gray"]
    assert card.data.labels == {"background": 0, "a": 1, "b": 2}
    assert (card.dice.folds, card.dice.cases) == (["0"], 2)
    assert card.dice.classes["a"].mean == pytest.approx(0.6)
    assert card.dice.mean.mean == pytest.approx(0.65)
    assert card.dice.mean.spread is None
    assert card.versions["nnunetv2"]
    assert f"-d {DATASET} -tr {TRAINER} -p nnUNetPlans_carded -c 2d" in card.predict[0]
    assert card.predict[0].endswith("-f 0 -i IMAGES -o MASKS")
    assert "not trained to the end: fold 1" in card.notes


def test_a_card_has_the_dice_of_its_own_checkpoint_alone(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / NAME)
    summary = copied / "fold_0" / "validation" / "summary.json"
    best_file = "checkpoint_best.pth"
    of_best = json.loads(summary.read_text()) | {"vit_checkpoint": best_file}
    summary.write_text(json.dumps(of_best))
    card = card_of_folder(copied)
    assert card.dice is None
    assert any("is of 'checkpoint_best.pth', not of checkpoint_final" in n for n in card.notes)
    shutil.copy(copied / "fold_0" / "checkpoint_final.pth", copied / "fold_0" / best_file)
    for checkpoint, has_dice in ((best_file, True), ("checkpoint_final.pth", False)):
        zipped = export_vit(copied, tmp_path / f"{has_dice}.zip", checkpoint_name=checkpoint)
        assert (card_of_zip(zipped).dice is not None) == has_dice
        assert ("0.650" in member(zipped, "README.md")) == has_dice
        with zipfile.ZipFile(zipped) as archive:
            files = archive.namelist()
        assert any(file.endswith("summary.json") for file in files) == has_dice
        installed, _ = import_vit(zipped, tmp_path / f"{has_dice}")
        again, of_zip = card_of_folder(installed), card_of_zip(zipped)
        assert (again.dice, again.predict) == (of_zip.dice, of_zip.predict)
        assert "not trained to the end: fold 0" not in again.notes
        assert (f"{best_file} alone: exported so" in "\n".join(again.notes)) == has_dice


def test_folds_that_validated_anothers_cases_are_no_part_of_its_dice_and_commands(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / NAME)
    for number, dice in (("1", 0.5), ("3", 0.1), ("10", 0.2), ("all", 0.9)):
        cases = ("case_3", "case_4") if number == "1" else ("case_1", "case_2")
        shutil.rmtree(copied / f"fold_{number}", ignore_errors=True)
        fold = write_fold(copied, number, {case: [dice, dice] for case in cases})
        shutil.copy(copied / "fold_0" / "checkpoint_final.pth", fold)
    zipped = export_vit(copied, tmp_path / "model.zip", folds=["10", "3", "1", "0"])
    assert " -f 0 1 -i " in member(zipped, "README.md")
    assert members_of(copied) == ["0", "1"]
    for card in (card_of_folder(copied), card_of_zip(zipped)):
        assert (card.dice.folds, card.dice.cases) == (["0", "1"], 4)
        assert card.dice.mean.mean == pytest.approx((0.65 + 0.5) / 2)
        assert all(" -f 0 1 -i " in command for command in card.predict)
        assert any(
            note.startswith("fold 3, 10: validated the cases of fold 0,") for note in card.notes
        )


def test_without_a_finished_fold_there_is_nothing_to_predict_with(folder, tmp_path, capsys):
    for name in ("plans.json", "dataset.json"):
        (tmp_path / NAME / "fold_1").mkdir(parents=True, exist_ok=True)
        (tmp_path / NAME / name).write_bytes((folder / name).read_bytes())
    call(info, tmp_path / NAME)
    printed = capsys.readouterr().out
    assert "not trained to the end: fold 1" in printed
    assert "nnUNetv2_predict" not in printed


def test_an_export_has_the_same_card_and_holds_it(folder, export):
    card, of_folder = card_of_zip(export), card_of_folder(folder)
    same = {"kind", "notes", "folds", "predict"}
    assert card.model_dump(exclude=same) == of_folder.model_dump(exclude=same)
    assert card.folds == ["0"]
    text, papers = member(export, "README.md"), member(export, "CITATION.bib")
    assert text.startswith(f"# {NAME.replace('_', chr(92) + '_')}\n")
    assert card.weights.sha256 in text
    assert "| Dice | 0.650 (fold 0: 2 cases) |" in text
    assert re.findall(r"@\w+\{(\w+),", papers) == card.papers
    assert "hu2022lora" in card.papers
    assert "case_1" not in text


def test_the_commands_of_an_export_name_its_checkpoint(folder, tmp_path):
    best = folder / "fold_0" / "checkpoint_best.pth"
    best.write_bytes((folder / "fold_0" / "checkpoint_final.pth").read_bytes())
    export = export_vit(folder, tmp_path / "best.zip", checkpoint_name=best.name)
    best.unlink()
    (command, _) = card_of_zip(export).predict
    assert "-f 0 -chk checkpoint_best.pth -i" in command
    assert command in member(export, "README.md")


def test_merged_and_adapter_exports_say_what_they_are(folder, tmp_path):
    merged = export_vit(folder, tmp_path / "merged.zip", form="merged")
    card = card_of_zip(merged)
    assert card.name == f"{TRAINER}__nnUNetPlans_carded_merged__2d"
    assert "LoRA is folded into the weights" in card.notes
    adapter = export_vit(folder, tmp_path / "adapter.zip", form="adapter")
    text = member(adapter, "README.md")
    assert "the base weights are not in it" in text
    assert "nnUNetv2_import_vit FILE.zip --checkpoint_path FILE" in text


def test_an_import_installs_the_card_too(export, tmp_path):
    installed, left_out = import_vit(export, tmp_path)
    assert left_out == []
    assert (installed / "README.md").read_text() == member(export, "README.md")
    assert (installed / "CITATION.bib").is_file()
    assert card_of_folder(installed).dice == card_of_zip(export).dice


def test_a_readme_elsewhere_in_a_zip_is_left_out(export, tmp_path, monkeypatch, capsys):
    more = tmp_path / "more.zip"
    more.write_bytes(export.read_bytes())
    with zipfile.ZipFile(more, "a") as archive:
        archive.writestr(f"{DATASET}/{NAME}/fold_0/README.md", "x")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    call(import_, more)
    assert "'fold_0/README.md'" in capsys.readouterr().out


def test_nothing_of_a_strangers_zip_is_unpickled(export, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"network_weights": Evil(tmp_path / "owned")}, tmp_path / "evil.pth")
    evil = rewrite(
        export, tmp_path / "evil.zip", checkpoint_final_pth=(tmp_path / "evil.pth").read_bytes()
    )
    call(info, evil)
    assert NAME in capsys.readouterr().out
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plans: plans["vit"].update(backbone="a name"), "'backbone'"),
        (lambda plans: plans["vit"]["weights"].update(sha256=3), "sha256"),
        (lambda plans: plans["vit"].update(versions=[1]), "versions"),
        (lambda plans: plans.pop("vit"), "no results of nnUNetv2_train_vit"),
        (lambda plans: plans.update(plans_name="other"), "give it back the name"),
    ],
)
def test_a_strangers_plans_of_another_form_are_one_line(change, message, export, tmp_path, capsys):
    plans = json.loads(member(export, "plans.json"))
    change(plans)
    evil = rewrite(export, tmp_path / "evil.zip", plans_json=json.dumps(plans))
    with pytest.raises(SystemExit) as stopped:
        call(info, evil)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_what_a_stranger_wrote_is_no_terminals_command_and_no_markup(folder, tmp_path, capsys):
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset |= {"licence": "\x1b[2Jfree\nfor all", "reference": "<script> [red]x[/red] | `y`"}
    export = export_vit(folder, tmp_path / "model.zip")
    evil = rewrite(export, tmp_path / "evil.zip", dataset_json=json.dumps(dataset))
    call(info, evil)
    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed
    assert "[red]x[/red]" in printed
    assert card_of_zip(evil).data.licence == " [2Jfree for all"


def test_images_are_stacked_before_a_model_of_neighbours_predicts(folder, tmp_path):
    dataset = json.loads((folder / "dataset.json").read_text()) | {"neighbours": {"count": 1}}
    export = export_vit(folder, tmp_path / "model.zip")
    of = rewrite(export, tmp_path / "of.zip", dataset_json=json.dumps(dataset))
    stack, *predict = card_of_zip(of).predict
    assert stack == "nnUNetv2_neighbours_vit -i IMAGES -o STACKED -m MODEL_FOLDER"
    assert all("-i STACKED -o MASKS" in line for line in predict)


def test_json_is_the_schema_and_all_of_it(export, capsys):
    call(info, export, "--json")
    printed = capsys.readouterr().out
    assert ModelCard.model_validate_json(printed) == card_of_zip(export)
    assert list(json.loads(printed)) == [
        "schema_version",
        "kind",
        "name",
        "trainer",
        "plans",
        "configuration",
        "folds",
        "backbone",
        "weights",
        "head",
        "data",
        "dice",
        "recipe",
        "versions",
        "papers",
        "predict",
        "notes",
    ]


def test_the_page_fits_80_columns_but_for_the_commands(folder, capsys):
    call(info, folder)
    page, commands = capsys.readouterr().out.split("\nPredict:\n")
    assert max(map(len, page.splitlines())) <= 80
    assert len(commands.splitlines()) == 2


@pytest.mark.parametrize("name", ["linear", "recommended_tiny"])
def test_a_shipped_config_says_what_would_be_trained(name, capsys):
    pytest.importorskip("vit_heads_segformer") if name != "linear" else None
    call(info, name, "--json")
    card = ModelCard.model_validate_json(capsys.readouterr().out)
    assert (card.kind, card.plans) == ("config", f"nnUNetPlans_{name}")
    assert card.recipe["num_epochs"] > 0
    assert name in shipped_configs()
    if name == "linear":
        assert card.weights.licence.startswith("DINOv3 License")
    else:
        assert card.weights is None


def test_a_configs_weight_file_is_named_by_its_checksum(exporter, tmp_path):
    config = tmp_path / "mine.yaml"
    text = "model: {{model_path: linear, backbone: visionfm, checkpoint_path: '{}'}}"
    config.write_text(text.format(exporter / "vit.pth"))
    card = card_of_config(config)
    assert card.weights.sha256 == sha256_of(exporter / "vit.pth")
    assert card.weights.release == "VisionFM"
    config.write_text(text.format(tmp_path / "gone.pth"))
    assert "model.checkpoint_path is no file or folder here" in card_of_config(config).notes
    config.write_text("model: {model_path: linear, backbone: retfound}")
    assert "on no hub" in card_of_config(config).notes[0]


def test_a_configs_weight_folder_is_named_by_its_checksum_too(tmp_path):
    weights = tmp_path / "a hub's folder"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"weights")
    config = tmp_path / "mine.yaml"
    config.write_text(
        f'model: {{model_path: linear, backbone: visionfm, checkpoint_path: "{weights}"}}'
    )
    card = card_of_config(config)
    assert (card.weights.file, card.notes) == (weights.name, [])
    assert card.weights.sha256 == sha256_of(weights / "model.safetensors")
    (weights / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds none of"):
        card_of_config(config)


def test_a_dinov3_config_with_a_file_may_be_of_meddinov3(monkeypatch, tmp_path):
    pytest.importorskip("vit_heads_segformer")
    monkeypatch.chdir(tmp_path)
    card = card_of_config("recommended_meddinov3")
    assert (card.weights.release, card.weights.licence) == (None, None)
    assert "simeoni2025dinov3" not in card.papers
    assert "MedDINOv3's" in card.notes[-1]
    assert card_of_config("recommended_dinov3_base").weights.release == "DINOv3 (Meta AI)"


def test_the_command_of_a_config_can_be_copied(tmp_path):
    config = tmp_path / ("long " * 45) / "mine.yaml"
    config.parent.mkdir()
    config.write_text("model: {model_path: linear, pretrained: false}")
    (command,) = card_of_config(config).predict
    assert shlex.split(command)[-1] == str(config)


@pytest.mark.parametrize("what", ["nothing.yaml", "nothing", "gone.zip", "."])
def test_what_is_none_of_these_is_one_line(what, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        call(info, what)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_of_an_onnx_file_it_is_said_where_to_look(tmp_path, capsys):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(SystemExit):
        call(info, tmp_path / "model.onnx")
    assert "is an ONNX file: what is in it stands in its metadata" in capsys.readouterr().err


def test_what_release_0_1_0_exported_has_a_card():
    card = card_of_zip(Path(__file__).parent / "release_0_1_0" / "model.zip")
    assert card.versions["nnunet-vit-trainer"] == "0.1.0"
    assert card.backbone.tuned == "lora"


def test_a_broken_zip_is_one_line(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        card_of_zip(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("asked", "name", "options", "release"),
    [
        ("dinov3", "vit_large_patch16_dinov3.lvd1689m", {}, "DINOv3 (Meta AI)"),
        ("dinov3", "vit_base_patch16_dinov3.lvd1689m", {"norm_eps": 1e-6}, "MedDINOv3"),
        ("vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_dinov2.lvd142m", {}, "DINOv2"),
        ("retfound", "vit_large_patch14_dinov2.lvd142m", {}, "RETFound"),
        ("vit_large_patch16_224.mae", "vit_large_patch16_224.mae", {}, "MAE (Meta AI)"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224", {}, None),
    ],
)
def test_weights_are_of_the_release_that_their_backbone_is_of(asked, name, options, release):
    found = release_of(family_of(asked, name), name, options)
    assert (found and found.name.startswith(release or "")) == (release and True)


def test_every_paper_that_a_part_may_name_is_there():
    lora = {"dora": True, "rslora": True}
    for family in ("dinov3", "dinov2", "retfound", "visionfm"):
        for head in ("unetr", "segformer"):
            papers = papers_of(release_of(family, "x", {}), head, {"neck": "pyramid"}, lora)
            text = bibtex_of(papers)
            assert re.findall(r"@\w+\{(\w+),", text) == papers
            assert text.count("{") == text.count("}")


def test_info_on_a_zip_costs_no_torch(export):
    code = (
        "import sys; from nnunet_vit_trainer.sharing.look import card_of_zip; "
        f"card_of_zip({str(export)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
