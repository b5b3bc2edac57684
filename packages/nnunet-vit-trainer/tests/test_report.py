"""The report of a run: what it tells, that it needs nothing else, and how a browser shows it."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from a_validation import copy_of, flat_case, pixels_of, write_validation
from trained_results import call

from nnunet_vit_trainer.checkpoints.model_folder import CHECKPOINT_KEY
from nnunet_vit_trainer.commands.report import report
from nnunet_vit_trainer.pictures.validation import draw_validation, read_validation
from nnunet_vit_trainer.plans.derive import PLANS_KEY
from nnunet_vit_trainer.plans.json_file import read_json
from nnunet_vit_trainer.report.command import command_of
from nnunet_vit_trainer.report.content import gather
from nnunet_vit_trainer.report.curves import draw_curves
from nnunet_vit_trainer.report.write import write_report
from nnunet_vit_trainer.training.oversight.showing import show_validation
from vit_backbone import MODEL_CONFIGS

LOGGED = {
    "train_losses": [0.5, 0.1, -0.2],
    "val_losses": [0.4, float("nan"), -0.1],
    "mean_fg_dice": [0.1, 0.5, 0.6],
    "ema_fg_dice": [np.float64(0.1), 0.2, 0.3],
    "epoch_start_timestamps": [1.7e9, 1.7e9 + 60, 1.7e9 + 120],
    "epoch_end_timestamps": [1.7e9 + 60, 1.7e9 + 120, 1.7e9 + 180],
}
EVIL = '<script>alert(1)</script> & "b"'


@pytest.fixture(scope="module")
def fold(trained_folder, tmp_path_factory):
    """A validated fold, whose classes, channel and case are named as nobody should."""
    model = copy_of(trained_folder, tmp_path_factory.mktemp("report"))
    labels = {"background": 0, EVIL: 1, "b": 2}
    cases = {f"case_{i}": flat_case(np.random.default_rng(i), shift=3 * i) for i in range(4)}
    cases["a&b <i>"] = flat_case(np.random.default_rng(9))
    fold = write_validation(model, cases, labels=labels, channels=[EVIL])
    draw_validation(fold)
    return fold


@pytest.fixture(scope="module")
def page(fold):
    return write_report(fold, LOGGED).read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += f"{data} "


def test_it_needs_no_other_file_and_runs_nothing(page):
    tags = Tags(page).found
    links = [v for _, a in tags for n, v in a.items() if n in ("src", "href", "srcset", "action")]
    assert len(links) == 3
    assert all(link.startswith("data:") for link in links)
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in tags}
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_what_users_named_is_text(page):
    assert "<script" not in page
    text = Tags(page).text
    assert text.count(EVIL) == 3
    assert "a&b <i>" in text


def test_it_tells_what_was_trained_from_what_and_how_well(page, fold, exporter):
    text = " ".join(Tags(page).text.split())
    plans = read_json(fold.parent / "plans.json")
    assert plans["vit"]["weights"]["sha256"] in text
    for said in (
        "weights vit.pth",
        "epochs 3 of 1000, 3.0 minutes in all",
        "last epoch 2023-11-14 22:16 UTC",
        "backbone test_vit, tuned: lora",
        "validated on 5 cases",
        "num_epochs: 1000",
        "nnunetv2",
        "nnUNetv2_train_vit Dataset900_ViTDemo 2d 0 --config mine.yaml",
    ):
        assert said in text, said
    assert str(exporter) not in page
    worst = text.index("case_3", text.index("Dice per case"))
    assert worst < text.index("case_0", text.index("Dice per case"))


def test_no_path_of_this_machine_is_in_it(fold, monkeypatch):
    command = ["/home/me/bin/nnUNetv2_train_vit", "900", "2d", "0", "--config=/home/me/c.yaml"]
    monkeypatch.setattr(sys, "argv", [*command, "-device", "cpu", "-pretrained_weights", "Me/w"])
    page = write_report(fold, LOGGED).read_text(encoding="utf-8")
    assert "nnUNetv2_train_vit 900 2d 0 --config=c.yaml -device cpu -pretrained_weights w" in page
    assert "/home/me" not in page


@pytest.mark.parametrize(
    ("folder", "plans", "command"),
    [
        ("nnUNetTrainer_vit__nnUNetPlans_a_ds__2d/fold_all", ("nnUNetPlans_a_ds", "nnUNetPlans_2d"),
         "all --config a.yaml -tr nnUNetTrainer_vit"),
        ("nnUNetTrainerNoDeepSupervision_vit__My_Plans_a_b__2d/fold_1",
         ("My_Plans_a_b", "My_Plans_2d"), "1 --config a_b.yaml -p My_Plans"),
        ("nnUNetTrainerNoDeepSupervision_vit__nnUNetPlans_a__2d/fold_1",
         ("nnUNetPlans_a", "other"), "1 --config a.yaml"),
    ],
)  # fmt: skip
def test_the_command_is_put_together_from_what_results_are_called(folder, plans, command, tmp_path):
    name, identifier = plans
    content = {"plans_name": name, "dataset_name": "Dataset001_A"}
    content |= {"configurations": {"2d": {"data_identifier": identifier}}}
    found = command_of(tmp_path / folder, content)
    assert found == f"nnUNetv2_train_vit Dataset001_A 2d {command}"


def test_every_family_has_a_licence():
    assert all(family["licence"] for family in MODEL_CONFIGS.values())


WEIGHTS = {"file": "C:\\me\\w.pth", "sha256": "0"}
MEDDINOV3 = {"name": "vit_base_patch16_dinov3.lvd1689m", "options": {"norm_eps": 1e-6}}


@pytest.mark.parametrize(
    ("weights", "backbone", "licence"),
    [
        (WEIGHTS, {"name": "vit_small_patch14_dinov2.lvd142m"}, "Apache-2.0"),
        (WEIGHTS, {"name": "vit_base_patch16_dinov3.lvd1689m"}, "DINOv3 License"),
        (WEIGHTS, MEDDINOV3, "not known"),
        (WEIGHTS, {"name": "vit_large_patch16_224.mae"}, "CC BY-NC 4.0"),
        (WEIGHTS | {"nnunet_checkpoint": True}, MEDDINOV3 | {"options": {}}, "not known"),
        (WEIGHTS, {"name": "vit_x"}, "not known"),
    ],
)
def test_the_licence_is_that_of_the_release(weights, backbone, licence, fold):
    found = read_validation(fold)
    found.model.plans[PLANS_KEY] |= {"weights": weights, "backbone": backbone, "model": {}}
    facts = gather(fold, found, {}).facts
    assert facts["weights"] == "w.pth"
    assert facts["licence of the weights"].startswith(licence)


def test_without_weights_the_training_began_at_random(fold):
    found = read_validation(fold)
    found.model.plans[PLANS_KEY]["weights"] = None
    assert "random" in gather(fold, found, {}).facts["weights"]


def test_a_class_that_no_case_has_is_left_out_of_the_mean_and_named(trained_folder, tmp_path):
    image, truth, prediction = flat_case(np.random.default_rng(0), shift=1)
    once = [np.where(mask == 2, 0, mask) for mask in (truth, prediction)]
    fold = write_validation(copy_of(trained_folder, tmp_path), {"case": (image, *once)})
    found = read_validation(fold)
    assert found.mean == found.scores[0].dice[0] > 0
    told = gather(fold, found, {})
    assert told.dice == f"{found.mean:.3f}"
    assert told.facts["validated on"] == "1 case, none with b"


def test_a_validation_of_the_best_checkpoint_says_so(trained_folder, tmp_path):
    model = copy_of(trained_folder, tmp_path)
    fold = write_validation(model, {"case": flat_case(np.random.default_rng(0), shift=1)})
    summary = fold / "validation" / "summary.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps(content | {CHECKPOINT_KEY: "checkpoint_best.pth"}))
    facts = gather(fold, read_validation(fold), {}).facts
    assert facts["validated on"] == "1 case, by checkpoint_best.pth"


def test_a_fold_tells_of_its_own_training(trained_folder, tmp_path):
    """The plans are of the fold that began last, with other epochs and releases."""
    model = copy_of(trained_folder, tmp_path)
    fold = write_validation(model, {"case": flat_case(np.random.default_rng(0), shift=1)})
    plans = read_json(model / "plans.json")
    later = plans[PLANS_KEY] | {"versions": {"torch": "9"}}
    later["train"] = {"num_epochs": 2}
    (model / "plans.json").write_text(json.dumps(plans | {PLANS_KEY: later}))
    own = later | {"versions": {"torch": "8"}, "train": {"num_epochs": 3}}
    content = {"network_weights": {}, "init_args": {"plans": plans | {PLANS_KEY: own}}}
    torch.save(content | {"logging": LOGGED}, fold / "checkpoint_final.pth")
    for logged in (LOGGED, None):
        page = write_report(fold, logged).read_text(encoding="utf-8")
        assert "3 of 3, 3.0 minutes" in page
        assert "num_epochs: 3" in page
        assert re.search(r"torch\D+8", page)


def test_of_many_cases_the_worst_are_told(trained_folder, tmp_path):
    model = copy_of(trained_folder, tmp_path)
    fold = write_validation(model, {"case": flat_case(np.random.default_rng(0), shift=1)})
    summary = fold / "validation" / "summary.json"
    content = json.loads(summary.read_text())
    (case,) = content["metric_per_case"]
    content["metric_per_case"] = [
        case | {"prediction_file": f"/x/case_{i:03}.png"} for i in range(120)
    ]
    summary.write_text(json.dumps(content))
    page = write_report(fold, {}).read_text()
    assert "The worst 50 of 120" in page
    assert page.count("<td>case_") == 50


@pytest.mark.parametrize(
    "logged", [LOGGED, {n: v[:1] for n, v in LOGGED.items()}, {"train_losses": [float("nan")]}]
)
def test_curves_are_drawn_of_any_number_of_epochs(logged):
    assert draw_curves(logged)[:4] == b"\x89PNG"


def test_without_an_epoch_there_are_no_curves(fold):
    assert draw_curves({"train_losses": [], "lrs": []}) is None
    assert "The results hold none." in write_report(fold, {}).read_text(encoding="utf-8")


def test_a_training_says_where_they_are(fold):
    told = []
    show_validation(fold, LOGGED, told.append)
    assert told == [
        f"Validation: overlay sheet in {fold / 'overlay.png'}",
        f"Validation: report in {fold / 'report.html'}",
    ]


def test_a_training_does_not_fail_of_what_cannot_be_drawn(fold, tmp_path, monkeypatch):
    told = []
    show_validation(tmp_path, LOGGED, told.append)
    assert [line[:45] for line in told] == [
        "WARNING: no overlay sheet of the validation: ",
        "WARNING: no report of the validation: UserErr",
    ]

    def fail(*_):
        raise MemoryError

    told.clear()
    monkeypatch.setattr("nnunet_vit_trainer.pictures.validation.read_slice", fail)
    show_validation(fold, LOGGED, told.append)
    said = "WARNING: no overlay sheet of the validation: MemoryError: MemoryError in test_report.py"
    assert told[0].startswith(said)
    assert told[1].startswith("Validation: report")


def test_the_command_writes_both_for_a_run_made_before(fold, capsys):
    checkpoint = fold / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "logging": LOGGED}, checkpoint)
    for name in ("overlay.png", "report.html"):
        (fold / name).unlink()
    call(report, fold.parent, "-f", "0")
    assert capsys.readouterr().out.split() == [
        str(fold / n) for n in ("overlay.png", "report.html")
    ]
    assert "Loss and pseudo Dice" in (fold / "report.html").read_text(encoding="utf-8")
    checkpoint.unlink()


def test_a_model_may_be_a_link(fold, tmp_path, capsys):
    shutil.copytree(fold.parent, tmp_path / "run17")
    link = tmp_path / fold.parent.name
    link.symlink_to(tmp_path / "run17")
    call(report, link)
    assert str(link / "fold_0" / "report.html") in capsys.readouterr().out


def test_a_fold_that_is_broken_does_not_stop_the_next_one(trained_folder, tmp_path, capsys):
    model = copy_of(trained_folder, tmp_path)
    fold = write_validation(model, {"case": flat_case(np.random.default_rng(0))})
    broken = shutil.copytree(fold, fold.with_name("fold_1"))
    shutil.copytree(fold, fold.with_name("fold_2"))
    (broken / "validation" / "summary.json").write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        call(report, model)
    assert stopped.value.code == 2
    out, said = capsys.readouterr()
    assert [line for line in out.splitlines() if line.endswith("report.html")] == [
        str(model / f"fold_{number}" / "report.html") for number in (0, 2)
    ]
    assert len(said.splitlines()) == 1
    assert f"no report of {broken}: " in said


def test_a_fold_that_is_not_validated_is_one_line(fold, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(report, fold.parent, "-f", "7")
    assert stopped.value.code == 2
    assert "has no validation of fold 7; there are: 0 (" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["the fold", "the data set", "elsewhere"])
def test_the_folder_that_was_meant_is_named(place, fold, tmp_path, capsys):
    meant = {"the fold": fold, "the data set": fold.parents[1], "elsewhere": tmp_path}[place]
    with pytest.raises(SystemExit) as stopped:
        call(report, meant)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "give a trained model's folder" in said
    assert (f"there: {fold.parent}" in said) == (place != "elsewhere")


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def show(file, home, width=1000, height=2600):
    """Open a page in a browser; return what it shows, and what it says on its console."""
    picture = home / f"{file.stem}.png"
    done = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={home / 'user'}"),
            *(f"--window-size={width},{height}", f"--screenshot={picture}", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert picture.is_file(), done.stderr
    return pixels_of(picture), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_it_without_an_error(page, fold, tmp_path):
    (fold / "report.html").write_text(page, encoding="utf-8")
    seen, errors = show(fold / "report.html", tmp_path)
    assert seen.shape == (2600, 1000, 3)
    assert errors == []
    assert (np.abs(seen.astype(int) - (0xE6, 0x9F, 0x00)).max(axis=2) < 3).sum() > 500
    written = (seen.min(axis=2) < 100).any(axis=1)  # rows of pixels with something on them
    assert written[2000:].any()
    # The same look does see an error.
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace("<body>", '<body><img src="https://localhost/x.png">'))
    assert show(broken, tmp_path)[1]
