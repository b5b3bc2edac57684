"""What an export refuses in one line, and what it must not tell."""

import json
import shutil
import zipfile

import pytest
import torch
from trained_results import DATASET, call

from nnunet_vit_trainer.commands.export import export as export_command
from nnunet_vit_trainer.results.card.folder import card_of_folder
from nnunet_vit_trainer.sharing import export
from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from nnunet_vit_trainer.sharing.manifest import Manifest
from vit_backbone import UserError


@pytest.fixture
def folder(trained_folder, tmp_path):
    """A copy of the trained model's folder, to spoil."""
    return shutil.copytree(trained_folder, tmp_path / "mine" / trained_folder.name)


@pytest.fixture(params=["link", "target"])
def linked(request, folder, tmp_path):
    """A link that leads to the model's folder, where one of the two alone says what it is."""
    if request.param == "target":
        other = tmp_path / "run17"
        other.symlink_to(folder)
        return other
    folder.rename(tmp_path / "run17")
    folder.symlink_to(tmp_path / "run17")
    return folder


def test_a_model_may_be_a_link_or_be_found_by_one(linked, trained_folder, tmp_path):
    file = export_vit(linked, tmp_path / "out.zip")
    with zipfile.ZipFile(file) as archive:
        assert f"{DATASET}/{trained_folder.name}/plans.json" in archive.namelist()
    assert card_of_folder(linked).name == trained_folder.name
    manifest = Manifest(tmp_path)
    manifest.begin(linked, {}, [], [], [])
    assert manifest.run["model"]["name"] == trained_folder.name


def change_json(file, **changed):
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def refuse(folder, match, *arguments, capsys):
    """The command says one line, ends with 2, and leaves nothing."""
    target = folder.parent / "out.zip"
    with pytest.raises(SystemExit) as stopped:
        call(export_command, folder, target, *arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert len(said.splitlines()) == 1
    assert len(said) < 600
    assert match in said
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"vit": 3}', "\\xff", "[" * 10_000])
@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
def test_broken_plans_or_dataset_json_are_one_line(file, text, folder, capsys):
    (folder / file).write_bytes(text.encode().decode("unicode_escape").encode("latin-1"))
    refuse(folder, "", capsys=capsys)


@pytest.mark.parametrize("key", ["plans_name", "dataset_name", "configurations", "vit"])
def test_plans_without_a_key_are_one_line(key, folder, capsys):
    change_json(folder / "plans.json", **{key: None})
    refuse(folder, "plans" if key.endswith("name") else "no results of", capsys=capsys)


@pytest.mark.parametrize("form", [[], ["--merged"], ["--adapter-only"]])
@pytest.mark.parametrize("key", ["labels", "channel_names"])
def test_a_dataset_json_without_a_key_is_one_line(form, key, folder, capsys):
    content = json.loads((folder / "dataset.json").read_text())
    del content[key]
    (folder / "dataset.json").write_text(json.dumps(content))
    refuse(folder, "no network can be built", *form, capsys=capsys)


@pytest.mark.parametrize("form", [[], ["--merged"], ["--adapter-only"]])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: [],
        lambda content: content | {"network_weights": [1]},
        lambda content: content | {"network_weights": {}},
        lambda content: content | {"network_weights": {"a": 1}},
        lambda content: content | {"init_args": None},
        lambda content: {k: v for k, v in content.items() if k != "init_args"},
    ],
)
def test_a_checkpoint_of_another_form_is_one_line(form, spoil, folder, capsys):
    file = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(spoil(torch.load(file, weights_only=False)), file)
    refuse(folder, "checkpoint_final.pth", *form, capsys=capsys)


@pytest.mark.parametrize("weights", [None, {}, [], {"file": 3, "sha256": "x"}])
def test_plans_that_do_not_say_the_base_weights_are_one_line(weights, folder, capsys):
    plans = json.loads((folder / "plans.json").read_text())
    plans["vit"]["weights"] = weights
    (folder / "plans.json").write_text(json.dumps(plans))
    match = "does not say file and sha256 of the base weights"
    refuse(folder, match, "-chk", "checkpoint_best.pth", capsys=capsys)


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_licence_is_spoken_of_where_the_training_began_with_weights(pretrained, folder, capsys):
    if not pretrained:
        (folder / "fold_0" / "checkpoint_best.pth").unlink()  # an adapter: it lacks the weights
        ours = json.loads((folder / "plans.json").read_text())["vit"]
        change_json(folder / "plans.json", vit=ours | {"weights": None})
    call(export_command, folder, folder.parent / "out.zip")
    assert ("mind their licence" in capsys.readouterr().out) == pretrained


def test_other_broken_files_are_one_line(folder, capsys):
    (folder / "fold_0" / "validation" / "summary.json").write_text("{")
    refuse(folder, "summary.json cannot be read", capsys=capsys)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"half of it")
    refuse(folder, "cannot be read as a checkpoint", capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["-f", "../fold_0"], "-f '../fold_0'"),
        (["-f", "0_old"], "-f '0_old'"),
        (["-chk", "../fold_0/checkpoint_final.pth"], "-chk '../fold_0"),
        (["-chk", "mine.pth"], "-chk 'mine.pth'"),
    ],
)
def test_names_that_no_import_would_take_are_refused(arguments, match, folder, capsys):
    shutil.copytree(folder / "fold_0", folder / "fold_0_old")
    shutil.copy(folder / "fold_0" / "checkpoint_final.pth", folder / "fold_0" / "mine.pth")
    refuse(folder, match, *arguments, capsys=capsys)


def test_a_fold_that_was_put_aside_or_is_given_twice_is_written_once(folder, tmp_path):
    shutil.copytree(folder / "fold_0", folder / "fold_0_old")
    for name, folds in (("a", None), ("b", ["0", "0"])):
        file = export_vit(folder, tmp_path / f"{name}.zip", folds=folds)
        with zipfile.ZipFile(file) as archive:
            assert sum(n.endswith("checkpoint_final.pth") for n in archive.namelist()) == 1
        import_vit(file, tmp_path / name)


@pytest.mark.parametrize(
    "name", ["Dataset900_a/b", "../Dataset900_x", "/tmp/x", "Dataset900_x:", ""]
)
def test_a_dataset_name_that_is_no_folders_name_is_refused(name, folder, capsys):
    change_json(folder / "plans.json", dataset_name=name)
    refuse(folder, "cannot be a folder's name", capsys=capsys)


@pytest.mark.parametrize(
    "name", ["Dataset900_a b (2)", "Dataset900_Gef\u00e4\u00dfe", "Dataset900_x__y"]
)
def test_an_unusual_dataset_name_goes_there_and_back(name, folder, tmp_path):
    change_json(folder / "plans.json", dataset_name=name)
    installed, left_out = import_vit(export_vit(folder, tmp_path / "out.zip"), tmp_path / "results")
    assert (installed.parent.name, left_out) == (name, [])


def test_a_zip_that_is_a_folder_is_said_to_be_one(folder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        export_vit(folder, tmp_path / "out")


def test_a_folder_that_goes_away_meanwhile_is_one_line(folder, tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    add = export._add_other_files

    def remove(*arguments):
        add(*arguments)
        shutil.rmtree(target)

    monkeypatch.setattr(export, "_add_other_files", remove)
    with pytest.raises(UserError, match=r"not exported: .*No such file"):
        export_vit(folder, target / "out.zip")


@pytest.mark.parametrize("form", ["whole", "merged", "adapter"])
def test_paths_in_sentences_and_keys_stay_at_home(form, folder, tmp_path):
    home = "/home/jane"
    sentence = f"loaded from {home}/w.pth, then C:\\Users\\jane\\w.pth"
    plans = json.loads((folder / "plans.json").read_text())
    plans["vit"] |= {"said": sentence, f"{home}/key": [sentence]}
    plans["vit"]["weights"]["file"] = f"{home}/vit.pth"
    (folder / "plans.json").write_text(json.dumps(plans))
    change_json(folder / "dataset.json", reference=f"see {home}/notes.txt")
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["logging"]["said"] = [sentence, ("~/jane/x", {f"{home}/k": 1})]
    content["init_args"] |= {"plans": plans, "more": sentence}
    content["vit"] = {"average": None, "said": sentence}
    torch.save(content, file)
    zipped = export_vit(folder, tmp_path / "out.zip", form=form)
    with zipfile.ZipFile(zipped) as archive:
        for name in archive.namelist():
            records = archive.read(name)
            assert b"jane" not in records, name
    assert DATASET in archive.namelist()[0]


@pytest.mark.parametrize(("form", "more"), [([], ""), (["--adapter-only"], " --checkpoint_path")])
def test_the_command_that_installs_it_can_be_pasted(
    form, more, trained_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    call(export_command, trained_folder, "a b/z ü.zip", *form)
    said = capsys.readouterr().out
    assert f"  nnUNetv2_import_vit 'a b/z ü.zip'{more}" in said
    stock = "nnUNetv2_install_pretrained_model_from_zip 'a b/z ü.zip'"
    assert (stock in said) == (not form)
