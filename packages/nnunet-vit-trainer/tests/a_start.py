"""A planned data set, and how runs on it are started, for tests of what comes before a training."""

import json

from nnunet_vit_trainer.launch import run

DATASET = "Dataset900_Small"
TRAINER = run.DEFAULT_TRAINER
SETTINGS = {
    "data_identifier": "nnUNetPlans_2d",
    "patch_size": [32, 32],
    "batch_size": 2,
    "normalization_schemes": ["ZScoreNormalization"],
}
CONFIG = {"model": {"model_path": "linear", "backbone": "test_vit", "pretrained": False}}


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def make_home(tmp_path, monkeypatch):
    """Make nnU-Net's folders with a planned data set of five cases, which no command has made."""
    for name in ("preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "preprocessed" / DATASET
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "configurations": {
            "2d": SETTINGS,
            "2d_small": {"inherits_from": "2d", "batch_size": 1},
            "2d_gone": {"inherits_from": "2d", "data_identifier": "gone"},
            "2d_empty": {"inherits_from": "2d", "data_identifier": "empty"},
            "2d_halved": {"inherits_from": "2d", "data_identifier": "halved"},
            "3d_fullres": SETTINGS | {"patch_size": [32, 32, 32]},
            "loop": {"inherits_from": "pool"},
            "pool": {"inherits_from": "loop"},
            "orphan": {"inherits_from": "nothing"},
            "of_two": {"inherits_from": ["2d", "pool"]},
        },
    }
    write(folder / "nnUNetPlans.json", plans)
    write(folder / "dataset.json", {"channel_names": {"0": "T1"}, "labels": {"background": 0}})
    files = {"nnUNetPlans_2d": ("pkl", "b2nd"), "empty": (), "halved": ("pkl",)}
    for name, endings in files.items():
        (folder / name).mkdir()
        for ending in endings:
            for i in range(5):
                (folder / name / f"case{i}.{ending}").touch()
    return tmp_path


def train_nothing(monkeypatch):
    """Return the list of what the trainer will get."""
    calls = []
    monkeypatch.setattr(run, "train_fold", lambda plans, results, **o: calls.append((plans, o)))
    return calls


def config(home, name="my", folder="a", **sections):
    return write(home / folder / f"{name}.yaml", CONFIG | sections)


def start(home, configuration="2d", fold=0, file=None, dataset=DATASET, **options):
    file = file or config(home)
    return run.run_training_vit(dataset, configuration, fold, file, device="cpu", **options)


def results_of(home, name="my"):
    return home / "results" / DATASET / f"{TRAINER}__nnUNetPlans_{name}__2d"


def plans_of(home, name="my"):
    return home / "preprocessed" / DATASET / f"nnUNetPlans_{name}.json"
