"""The cases of a fold: those that its training began with, and no others in its validation."""

from types import SimpleNamespace

import pytest
import torch
from in_the_air import DATASET, in_the_air, make_trainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_vit_trainer.training.oversight.split import checked_split, remove_others
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
from vit_backbone import UserError


def test_a_split_is_the_same_in_any_order_and_another_one_with_other_cases():
    began = checked_split(None, ["a", "b"], ["c", "1"])
    assert checked_split(began, ["b", "a"], [1, "c"]) == began
    for training, validation in ((["a", "c"], ["b", "1"]), (["a"], ["c", "1"]), (["a", "b"], [])):
        with pytest.raises(
            UserError, match=r"splits_final\.json: the cases of this fold are others"
        ):
            checked_split(began, training, validation)


def test_masks_of_other_cases_are_removed_and_nothing_else(tmp_path):
    truths, folder = tmp_path / "gt_segmentations", tmp_path / "validation"
    assert remove_others(folder, ["a"], ".nii.gz", truths) == []
    for parent in (truths, folder):
        parent.mkdir()
        for case in ("a", "b.1", "c"):
            (parent / f"{case}.nii.gz").touch()
    kept = {"a.nii.gz", "a.npz", "summary.json", "notes.nii.gz", "d.npz"}
    for name in kept | {"b.1.npz", "b.1.pkl"}:
        (folder / name).touch()
    assert remove_others(folder, ["a"], ".nii.gz", truths) == ["b.1", "c"]
    assert {file.name for file in folder.iterdir()} == kept


@pytest.fixture
def validated(tmp_path, monkeypatch):
    """A fold that was trained with a and validated on b; returns how it is validated again."""
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *_: None)
    monkeypatch.setattr("nnunet_vit_trainer.training.trainer.warn_of_bad_cases", lambda *_: None)
    split = [["a"], ["b"]]
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda _: split)
    monkeypatch.setattr(
        nnUNetTrainer,
        "get_tr_and_val_datasets",
        lambda _: [SimpleNamespace(identifiers=names) for names in split],
    )
    for check in ("refuse_bad_cases", "have_foreground"):
        monkeypatch.setattr(
            f"nnunet_vit_trainer.training.from_plans.{check}", lambda *_, **__: True
        )
    with in_the_air(tmp_path):
        loaders = nnUNetTrainer.get_dataloaders

        def look_and_load(trainer):
            trainer.get_tr_and_val_datasets()
            return loaders(trainer)

        monkeypatch.setattr(nnUNetTrainer_vit, "get_dataloaders", look_and_load)
        trainer = make_trainer()
        trainer.run_training()
        trainer.perform_actual_validation()
        yield trainer, split


def reloaded(trainer, **options):
    again = make_trainer(**options)
    again.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    return again


def test_a_fold_whose_split_was_changed_is_neither_continued_nor_validated(validated):
    trainer, split = validated
    reloaded(trainer).perform_actual_validation()
    split[:] = [["b"], ["a"]]
    with pytest.raises(UserError, match="others than its training began with"):
        reloaded(trainer).perform_actual_validation()
    with pytest.raises(UserError, match="others than its training began with"):
        reloaded(trainer, num_epochs=4).run_training()
    make_trainer().run_training()  # anew
    reloaded(trainer).perform_actual_validation()


def test_a_checkpoint_that_does_not_say_its_split_goes_on(validated):
    """As stock nnU-Net's, and those of 0.1.0."""
    trainer, split = validated
    file = f"{trainer.output_folder}/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    del content["vit"]["split"]
    torch.save(content, file)
    split[:] = [["b"], ["a"]]
    reloaded(trainer).perform_actual_validation()


def test_masks_of_an_earlier_split_are_not_scored(validated, tmp_path):
    trainer, _ = validated
    truths = tmp_path / "preprocessed" / DATASET / "gt_segmentations"
    validation = tmp_path / trainer.output_folder / "validation"
    for folder in (truths, validation):
        folder.mkdir()
        for case in "ab":
            (folder / f"{case}.png").touch()
    trainer.perform_actual_validation()
    assert [file.name for file in validation.iterdir()] == ["b.png"]
    (log,) = {*validation.parent.glob("training_log*.txt")}
    assert "the masks of 1 cases, such as a" in log.read_text()
