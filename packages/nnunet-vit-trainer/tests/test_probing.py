"""The parts of a probe: folds, tiles, shares of labels, probes on synthetic features, Dice."""

import json
import math
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from probe_data import blocks, write_data

from nnunet_vit_trainer.config.reading import load_config
from nnunet_vit_trainer.probing import winner
from nnunet_vit_trainer.probing.candidates import candidates_of
from nnunet_vit_trainer.probing.crossing.classify import Patches, draw, fit_linear, vote
from nnunet_vit_trainer.probing.crossing.folds import Fold, folds_of, sample_cases
from nnunet_vit_trainer.probing.crossing.scores import (
    Score,
    confusion_of,
    dice_of_patches,
    dice_of_pixels,
    put_together,
)
from nnunet_vit_trainer.probing.crossing.validate import Scores, counted_classes, cross_validate
from nnunet_vit_trainer.probing.data import read_data
from nnunet_vit_trainer.probing.patches.sampling import even_shares
from nnunet_vit_trainer.probing.patches.shares import shares_of
from nnunet_vit_trainer.probing.patches.tiles import UNKNOWN, Labels, Tile, choose, read_tiles
from nnunet_vit_trainer.probing.table import Row, as_data, ranked
from nnunet_vit_trainer.probing.taps import layer_indices_of
from vit_backbone import UserError

POSITIONS = {"a": (1,), "b": (2,)}


def tile_of(case, labels):
    labels = np.asarray(labels, np.int16)
    return Tile(case, case, np.zeros((1, *labels.shape), np.float32), labels, 1.0)


def mask_of(number, size=32):
    return blocks(number, size=size)[1][0]


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("sizes", "budget", "shares"),
    [
        ([5, 5, 5], 6, [2, 2, 2]),
        ([1, 9, 9], 9, [1, 4, 4]),
        ([3, 3], 100, [3, 3]),
        ([4, 4, 4], 2, [1, 1, 0]),
        ([], 3, []),
        ([2], 0, [0]),
    ],
)
def test_what_one_part_cannot_use_goes_to_the_others(sizes, budget, shares):
    assert even_shares(sizes, budget) == shares


def test_a_thin_object_has_its_share_of_a_patch():
    labels = np.zeros((16, 32), int)
    labels[:, 3] = 1  # a line of one pixel: never the most frequent label of a patch
    labels[:8, 16:] = UNKNOWN
    found = shares_of(np.asarray(labels), 16, 2)
    assert found.shares[0, 0].tolist() == [15 / 16, 1 / 16]
    assert found.shares[0, 1].tolist() == [1, 0]
    assert found.known.tolist() == [[1, 0.5]]


def test_padding_to_whole_patches_has_no_label():
    found = shares_of(np.ones((20, 14), int), 14, 2)
    assert found.known.tolist() == [[1.0], [pytest.approx(6 / 14)]]
    assert found.shares[1, 0].tolist() == [0, 1]
    assert shares_of(np.full((4, 4), UNKNOWN), 4, 2).shares.sum() == 0


def test_outside_is_background_and_ignored_is_unknown():
    labels = Labels((0, 1, 3), ignored=4)
    assert labels.positions_of(np.array([-1, 0, 3, 4]), "x").tolist() == [0, 0, 2, UNKNOWN]
    with pytest.raises(UserError, match="case x: its mask holds 2, which is no label"):
        labels.positions_of(np.array([0, 2]), "x")


def test_each_class_of_a_case_is_in_a_tile_as_long_as_they_last():
    held = [{0}] * 50 + [{UNKNOWN}] * 50 + [{0, 1}, {0, 2}, {UNKNOWN, 0, 3}]
    for seed in range(5):
        chosen = choose(held, 3, np.random.default_rng(seed))
        assert set(chosen) == {100, 101, 102}
    chosen = choose(held, 60, rng())
    assert len(chosen) == 53
    assert not any(held[i] == {UNKNOWN} for i in chosen)
    first = {choose(held, 1, np.random.default_rng(seed))[0] for seed in range(20)}
    assert first == {100, 101, 102}


def test_slices_are_tiles_of_the_planned_size_padded_as_nnunet_does():
    image = np.arange(4 * 20 * 70, dtype=np.float32).reshape(1, 4, 20, 70)
    mask = np.zeros((1, 4, 20, 70))
    mask[0, 2, 5:9, 60:] = 1
    case = image, mask, None, {"spacing": [1.0, 2.0, 3.0]}  # of the file, not of the plans
    dataset = SimpleNamespace(load_case=lambda name: case)
    (tile,) = read_tiles(dataset, ["v"], 1, (32, 32), 2.0, Labels((0, 1), None), rng())
    assert (tile.name, tile.aspect) == ("v, slice 3 of 4", 2.0)
    assert tile.image.shape == (1, 32, 32)
    assert (tile.labels[:6] == UNKNOWN).all()
    assert (tile.image[:, :6] == 0).all()
    assert tile.image[0, 6, 0] == image[0, 2, 0, 38]  # the last tile ends with the image
    assert (tile.labels == 1).sum() == 40


@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN or infinite"), (None, "cannot be read")])
def test_a_case_that_is_broken_is_named(value, said):
    image = np.full((1, 1, 8, 8), value or 0.0) if value else np.zeros((1, 1))
    case = image, np.zeros((1, 1, 8, 8)), None, {}
    dataset = SimpleNamespace(load_case=lambda name: case)
    with pytest.raises(UserError, match=f"case v .*{said}"):
        read_tiles(dataset, ["v"], 1, (8, 8), 1.0, Labels((0, 1), None), rng())


def test_without_splits_the_folds_are_those_that_nnunet_would_make(tmp_path):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = [f"c{i}" for i in range(12)]
    folds = folds_of(tmp_path, "none", cases)
    theirs = generate_crossval_split(sorted(cases))
    assert [fold.test for fold in folds] == [[*map(str, split["val"])] for split in theirs]
    assert len(folds_of(tmp_path, "none", ["a", "b", "c"])) == 3  # each is left out once
    with pytest.raises(UserError, match=r"1 case in .* cannot be cross-validated; give at least 2"):
        folds_of(tmp_path, "none", ["a"])


def test_a_case_in_both_parts_of_a_split_is_refused(tmp_path):
    cases = {f"c{i}": blocks(i) for i in range(3)}
    splits = [{"train": ["c0", "c1"], "val": ["c1", "c2"]}]
    folder = write_data(tmp_path, cases, splits=splits)
    with pytest.raises(UserError, match="fold 0 has 1 cases both in 'train' and in 'val', such as"):
        folds_of(folder, "nnUNetPlans_2d", [*cases])
    splits[0]["val"] = ["c2", "c9"]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match="not among the preprocessed ones"):
        folds_of(folder, "nnUNetPlans_2d", [*cases])


def test_a_fold_on_a_part_of_anothers_cases_is_no_further_fold(tmp_path):
    cases = {f"c{i}": blocks(i) for i in range(3)}
    splits = [{"train": train, "val": ["c2"]} for train in (["c0"], ["c0", "c1"])]
    folder = write_data(tmp_path, cases, splits=splits)
    assert folds_of(folder, "nnUNetPlans_2d", [*cases]) == [Fold(["c0", "c1"], ["c2"])]


def test_cases_are_drawn_from_what_each_fold_is_scored_on():
    folds = [Fold([f"t{i}" for i in range(900)], ["v0", "v1"])]
    drawn = sample_cases(folds, 20, rng())
    assert len(drawn) == 20
    assert {"v0", "v1"} <= {*drawn}
    assert drawn == sample_cases(folds, 20, rng())


def test_a_rare_label_is_drawn_and_frequencies_stay():
    shares = np.zeros((100_000, 3), np.float32)
    shares[:, 0] = 1
    shares[:30_000] = [0.5, 0.5, 0]
    shares[7] = [0.2, 0, 0.8]
    known = np.ones(len(shares), np.float32)
    known[-10:] = 0
    drawn, weights = draw(shares, known, 1000, rng())
    assert 7 in drawn
    assert len(drawn) <= 1000
    assert drawn.max() < len(shares) - 10
    kept = Patches(np.zeros((len(drawn), 1)), shares[drawn], weights)
    assert np.allclose(kept.frequencies, shares[:-10].mean(axis=0), atol=1e-3)


def test_a_probe_tells_shares_and_knows_nothing_of_labels_it_has_not_seen():
    features = rng().normal(size=(400, 8)).astype(np.float32)
    share = 1 / (1 + np.exp(-2 * features[:, 0]))
    shares = np.stack([1 - share, np.zeros_like(share), share], axis=1)
    patches = Patches(features, shares, np.ones(400))
    found = fit_linear(patches, 1.0).shares(features.reshape(20, 20, 8))
    assert found.shape == (20, 20, 3)
    assert (found[..., 1] == 0).all()
    assert np.abs(found[..., 2].ravel() - share).mean() < 0.05
    assert np.abs(vote(patches, features)[:, 2] - share).mean() < 0.25
    only = Patches(features, np.eye(3)[np.zeros(400, int)], np.ones(400))
    with pytest.raises(UserError, match="a single label"):
        fit_linear(only, 1.0)


def features_of(tile, patch, encode):
    shares = shares_of(tile.labels, patch, 3).shares
    return encode(tile, shares).astype(np.float16)


def validate(tiles, folds, encode, patch=4, positions=POSITIONS):
    features = [features_of(tile, patch, encode) for tile in tiles]
    counted = counted_classes(tiles, folds, positions)
    return cross_validate(features, tiles, patch, folds, counted, positions, 3)


def test_features_that_hold_the_labels_are_found_to():
    tiles = [tile_of(f"c{i}", mask_of(i)) for i in range(4)]
    folds = [Fold(["c0", "c1", "c2"], ["c3"]), Fold(["c1", "c2", "c3"], ["c0"])]
    noise = rng()
    good = validate(tiles, folds, lambda _, s: s + noise.normal(0, 0.1, s.shape))
    bad = validate(tiles, folds, lambda _, s: noise.normal(size=s.shape))
    assert good.pixels.mean.mean > 0.9
    assert good.patches.mean.mean > 0.8
    assert good.neighbours.mean.mean > 0.9
    assert len(good.pixels.folds) == 2
    assert bad.pixels.mean.mean < 0.5


def test_a_case_is_never_scored_by_a_probe_that_saw_it():
    """The features tell nothing but which case it is: whoever saw the case would know its label."""
    noise = rng()
    names = [f"c{i}" for i in range(24)]
    tiles = [
        tile_of(name, np.where(np.arange(16)[:, None] < 8, 0, 1 + i % 2) * np.ones((16, 16), int))
        for i, name in enumerate(names)
    ]
    own = {name: noise.normal(size=64) for name in names}

    def encode(tile, shares):
        rows = shares[..., :1] * 5
        return np.concatenate([np.broadcast_to(own[tile.case], (*rows.shape[:2], 64)), rows], -1)

    halves = names[:12], names[12:]
    folds = [Fold(*halves), Fold(*halves[::-1])]
    honest = validate(tiles, folds, encode)
    leaked = validate(tiles, [Fold(names, half) for half in halves], encode)
    assert leaked.pixels.mean.mean > 0.9
    assert honest.pixels.mean.mean < 0.75
    assert honest.neighbours.mean.mean < 0.75


def test_an_object_that_never_fills_half_of_a_patch_is_found():
    def thin(number):
        mask = np.zeros((64, 64), int)
        mask[:16, 6 + 16 * (number % 4) : 9 + 16 * (number % 4)] = 1
        return tile_of(f"c{number}", mask)

    tiles = [thin(i) for i in range(24)]
    folds = [Fold([f"c{i}" for i in range(12)], [f"c{i}" for i in range(12, 24)])]
    noise = rng()
    line = {"line": (1,)}
    found = validate(tiles, folds, lambda _, s: s + noise.normal(0, 0.01, s.shape), 16, line)
    assert found.pixels.classes["line"] > 0.2
    assert found.patches.classes["line"] > 0.7


def test_a_class_in_one_case_is_not_scored_and_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    cases = {f"c{i}": blocks(i) for i in range(3)}
    for name in ("c0", "c1"):
        cases[name][1][cases[name][1] == 2] = 0
    write_data(tmp_path, cases)
    data = read_data(900, "2d", "nnUNetPlans", 10, 0)
    assert data.counted == [["a"]] * 3
    assert "class b is not in both parts of any fold, so it is not scored" in data.notes
    found = put_together([{"a": 0.5, "b": math.nan}, {"a": 0.7, "b": math.nan}])
    assert found.mean.mean == pytest.approx(0.6)
    assert math.isnan(found.classes["b"])


def test_folds_of_which_no_case_was_drawn_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    write_data(tmp_path, {f"c{i}": blocks(i) for i in range(10)})
    few, more = (read_data(900, "2d", "nnUNetPlans", most, 0).notes for most in (2, 10))
    assert few == ["2 tiles of 32x32 px, of 2 of 10 cases; 2 of 5 folds scored"]
    assert more == ["10 tiles of 32x32 px, of 10 of 10 cases; 5 folds"]


def test_a_single_fold_that_is_scored_has_no_spread(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    splits = [{"train": ["c0"], "val": ["c1"]}]
    write_data(tmp_path, {f"c{i}": blocks(i) for i in range(2)}, splits=splits)
    (note,) = read_data(900, "2d", "nnUNetPlans", 2, 0).notes
    assert note.endswith("; 1 fold, so no spread")


def test_no_class_in_both_parts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    cases = {f"c{i}": blocks(i) for i in range(2)}
    cases["c0"][1][:] = 0
    write_data(tmp_path, cases)
    with pytest.raises(UserError, match="no class is both in training and in validation cases"):
        read_data(900, "2d", "nnUNetPlans", 10, 0)


def test_regions_and_what_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    labels = {"background": 0, "both": [1, 2], "b": [2], "ignore": 3}
    cases = {f"c{i}": blocks(i, slices=4) for i in range(3)}
    cases["c1"][1][:, 0] = 3
    write_data(tmp_path, cases, labels=labels)
    data = read_data(900, "2d", "nnUNetPlans", 6, 0)
    assert data.positions == {"both": (1, 2), "b": (2,)}
    assert data.labels == 3
    assert {tile.aspect for tile in data.tiles} == {1.5}  # of the plans' pixels, however cut
    assert len(data.tiles) == 6
    assert {(t.labels[0] == UNKNOWN).all() for t in data.tiles if t.case == "c1"} == {True}
    confusion = confusion_of(np.array([0, 1, 2, UNKNOWN]), np.array([0, 2, 1, 1]), 3)
    dice = dice_of_pixels(confusion, data.positions, ["both"])
    assert dice["both"] == 1
    assert math.isnan(dice["b"])
    truth = np.array([[0.5, 0.5, 0], [1, 0, 0]])
    found = dice_of_patches(truth, truth[:, [0, 2, 1]], np.ones(2), data.positions, ["both", "b"])
    assert found == {"both": 1, "b": 0}


def row(dice, name="x", **options):
    model = {"backbone": "dinov2", "backbone_size": "small", "checkpoint_path": "", "pretrained":
             None, "patch_size": 16, "layer_indices": None, "input_norm": "auto"}  # fmt: skip
    model |= options.pop("model", {})
    score = Score([dice], {"a": dice, "b": math.nan})
    scores = None if dice is None else Scores(score, score, score)
    return Row(name, 16, "four", "auto", model, scores=scores, **options)


def test_rows_are_ranked_and_what_failed_comes_last():
    rows = ranked([row(None, "broken", failed="why"), row(0.3), row(0.7, "best")])
    assert [of.name for of in rows] == ["best", "x", "broken"]
    data = json.loads(json.dumps(as_data(rows[0], 1), allow_nan=False))
    assert (data["rank"], data["pixels"]["mean"], data["pixels"]["spread"]) == (1, 0.7, None)
    assert data["pixels"]["classes"] == {"a": 0.7, "b": None}
    assert as_data(rows[2], 3)["rank"] is None


@pytest.mark.parametrize("heads", [["linear", "segformer"], ["linear"]])
def test_the_winners_config_is_one(tmp_path, monkeypatch, heads):
    monkeypatch.setattr(winner, "available_heads", lambda: heads)
    if "segformer" in heads:
        pytest.importorskip("vit_heads_segformer", reason="another package's head")
    weights = tmp_path / "my weights (1) ünï__ds.pth"
    weights.touch()
    best = row(0.7, weights.stem, model={"checkpoint_path": str(weights)})
    of = ("Dataset900_Two organs", "2d", "nnUNetViTPlans")
    file, note = winner.write_config(best, *of, tmp_path)
    (command,) = (line for line in file.read_text().splitlines() if "train_vit" in line)
    assert shlex.split(command[1:])[1] == "Dataset900_Two organs"
    assert command.endswith(" -p nnUNetViTPlans")
    config = load_config(file)
    assert config.model.checkpoint_path == str(weights)
    assert (config.model.patch_size, config.model.layer_indices) == (16, None)
    assert config.model.model_path == ("segformer" if "segformer" in heads else "linear")
    assert ("not installed" in note) == ("segformer" not in heads)
    assert winner.write_config(row(0.8, weights.stem, model=best.model), *of, tmp_path)[0] == file
    assert "a Dice of 0.800." in file.read_text()


@pytest.mark.parametrize("changed", ["edited", "of other weights"])
def test_a_config_that_is_another_stays_and_the_new_one_has_a_number(tmp_path, changed):
    files = [tmp_path / name / "vit.pth" for name in "ab"]
    for weights in files:
        weights.parent.mkdir()
        weights.touch()
    one, other = (row(0.7, "vit", model={"checkpoint_path": str(of)}) for of in files)
    of = ("Dataset900_Tiny", "2d", "nnUNetPlans", tmp_path)
    first, note = winner.write_config(one, *of)
    assert "stays" not in note
    if changed == "edited":
        first.write_text(first.read_text() + "# mine\n")
        other = one
    before = first.read_text()
    for _ in range(2):
        second, note = winner.write_config(other, *of)
        assert f"{first} was there with other content and stays as it is" in note
        assert second.name == f"{first.stem}-2.yaml"
        assert load_config(second).model.checkpoint_path == other.model["checkpoint_path"]
        assert str(second) in second.read_text()
    assert first.read_text() == before
    assert len([*tmp_path.glob("*.yaml")]) == 2


def test_a_winner_of_random_weights_trains_all_of_itself(tmp_path):
    best = row(0.7, "dinov2:small, random", model={"pretrained": False, "layer_indices": [-1] * 4})
    file, _ = winner.write_config(best, "Dataset900_Tiny", "2d", "nnUNetPlans", tmp_path)
    assert " -p " not in file.read_text()
    config = load_config(file)
    assert (config.tune, config.model.pretrained) == ("full", False)
    assert config.model.layer_indices == [-1] * 4


def test_backbones_are_files_folders_and_names(tmp_path):
    for name in ("a/vit.pth", "b/vit.pth", "b/x.safetensors", "b/readme.txt", "b/hub/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    words = [tmp_path / "a/vit.pth", tmp_path / "b", f"test_vit={tmp_path}/b/x.safetensors"]
    words += ["dinov2:small", "dinov3", "vit_base_patch16_clip_224.openai"]
    found = candidates_of([*map(str, words)])
    assert [of.name for of in found] == [
        *("a/vit", "hub", "b/vit", "b/x", "b/x"),
        *("dinov2:small", "dinov3", "vit_base_patch16_clip_224.openai"),
    ]
    assert (found[4].backbone, found[4].file) == ("test_vit", tmp_path / "b/x.safetensors")
    assert [(of.backbone, of.size) for of in found[5:7]] == [("dinov2", "small"), ("dinov3", None)]


def test_different_files_never_have_one_name(tmp_path):
    for name in ("a/x/vit.pth", "b/x/vit.pth", "c/vit.pth", "c/vit.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [of.name for of in candidates_of([f"{tmp_path}/{of}" for of in ("a/x", "b/x", "c")])]
    assert len({*names}) == 4


def test_a_file_of_the_folder_that_one_is_in_has_that_folders_name(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "vit.pth").touch()
    monkeypatch.chdir(tmp_path / "mine")
    assert [of.name for of in candidates_of(["vit.pth", "./vit.pth"])] == ["mine/vit"] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([""], "an empty word"),
        (["{folder}/gone.pth"], "is not there"),
        (["gone.safetensors"], "is not there"),
        (["{folder}"], "holds no weights"),
        (["dinov2:small={folder}/gone"], "there is no file"),
        ([], "no backbone to try"),
    ],
)
def test_what_is_no_backbone_is_one_line(tmp_path, words, said):
    with pytest.raises(UserError, match=said):
        candidates_of([word.format(folder=tmp_path) for word in words])


def test_taps_are_words_or_four_blocks():
    assert layer_indices_of("four") is None
    assert layer_indices_of("last") == [-1] * 4
    assert layer_indices_of("dinov3") == "dinov3"
    assert layer_indices_of("2,5,8,11") == [2, 5, 8, 11]
    for wrong in ("first", "1,2", "", "1,2,3,x"):
        with pytest.raises(UserError, match="or four blocks"):
            layer_indices_of(wrong)
