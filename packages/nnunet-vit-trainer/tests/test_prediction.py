"""Our predictor against nnU-Net's own on the same model: the same masks, files and sums."""

import copy
import json
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fake_results import write_fold
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from PIL import Image
from trained_results import TRAINER, call, write_results

from nnunet_vit_trainer.commands.predict import predict as predict_command
from nnunet_vit_trainer.prediction import Predictor
from nnunet_vit_trainer.prediction.batches import predicted
from nnunet_vit_trainer.prediction.cases import Case, find_cases
from nnunet_vit_trainer.prediction.ensemble import folds_of
from nnunet_vit_trainer.prediction.files import predict_cases
from nnunet_vit_trainer.prediction.tiles import Canvas
from nnunet_vit_trainer.sharing.export import export_vit
from vit_backbone import UserError

SIZES = {"large": (70, 45), "small": (20, 17), "one_tile": (32, 32), "a.b_0001": (33, 64)}
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def model(exporter):
    """A model of two folds with different weights."""
    folder = write_results(exporter, "two_folds")
    content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    torch.manual_seed(3)
    weights = content["network_weights"]
    content["network_weights"] = {
        name: tensor + 0.05 * torch.randn_like(tensor) if "head" in name else tensor
        for name, tensor in weights.items()
    }
    (folder / "fold_1").mkdir()
    torch.save(content, folder / "fold_1" / "checkpoint_final.pth")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, size in SIZES.items():
        pixels = random.integers(0, 255, size, np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}_0000.png")
    return folder


@pytest.fixture(scope="module")
def stocks(model, images, tmp_path_factory):
    """What nnU-Net's own predictor makes of them, with both folds, mirroring and probabilities."""
    output = tmp_path_factory.mktemp("stock")
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0, 1))
    files = [[str(images / f"{name}_0000.png")] for name in SIZES]
    outputs = [str(output / name) for name in SIZES]
    stock.predict_from_files_sequential(files, outputs, save_probabilities=True)
    return output


def read(folder, name):
    return np.asarray(Image.open(folder / f"{name}.png"))


def command(images, output, model, *arguments):
    files = images if isinstance(images, list) else [images]
    call(predict_command, "-i", *files, "-o", output, "-m", model, "-device", "cpu", *arguments)


def test_masks_and_files_are_stocks(model, images, stocks, tmp_path, capsys):
    command(images, tmp_path, model, "--save_probabilities", "-batch_size", "5")
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in stocks.iterdir()}
    for name in SIZES:
        assert (read(tmp_path, name) == read(stocks, name)).all()
        ours, theirs = (
            np.load(folder / f"{name}.npz")["probabilities"] for folder in (tmp_path, stocks)
        )
        # nnU-Net sums in float16, where merged adapters and other batches go a step another way.
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    said = capsys.readouterr().out
    assert "4 of 4 cases" in said
    assert max(map(len, said.splitlines())) <= 80


def test_without_mirroring_and_at_another_step(model, images, tmp_path):
    command(images, tmp_path, model, "--fast", "-f", "1")
    stock = nnUNetPredictor(0.8, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (1,))
    files = [[str(images / f"{name}_0000.png")] for name in SIZES]
    stock.predict_from_files_sequential(files, [str(tmp_path / f"stock_{n}") for n in SIZES])
    for name in SIZES:
        assert (read(tmp_path, name) == read(tmp_path, f"stock_{name}")).all()


def test_a_finished_case_is_not_predicted_again_and_a_half_one_is(model, images, stocks, tmp_path):
    killed = tmp_path / ".unfinished.0123456789ab-1-2-01234567.tmp"
    (killed / "small").mkdir(parents=True)
    os.utime(killed, (0, 0))
    (tmp_path / "large.png").write_bytes(b"whole, as it seems")
    command(images, tmp_path, model, "--continue_prediction")
    assert (tmp_path / "large.png").read_bytes() == b"whole, as it seems"
    assert (read(tmp_path, "small") == read(stocks, "small")).all()
    assert not (tmp_path / "small.npz").exists()
    assert not list(tmp_path.glob(".*"))


def test_going_on_with_another_model_or_other_options_is_refused(model, images, tmp_path, capsys):
    one, same = [images / "small_0000.png"], ("-f", "0", "--fast")
    command(one, tmp_path, model, *same)
    before = {file.name for file in tmp_path.iterdir()}
    command(one, tmp_path, model, *same, "--continue_prediction")

    def refused(*arguments):
        with pytest.raises(SystemExit):
            command(one, tmp_path, model, *arguments, "--continue_prediction")
        return capsys.readouterr().err

    said = refused("-f", "1", "--fast")
    assert "masks of another model or options (weights); leave --continue_prediction away" in said
    assert "options (weights)" in refused("--fast")  # with no -f, both folds
    assert "options (step)" in refused("-f", "0", "--disable_tta")
    assert "options (mirroring)" in refused("-f", "0", "-step_size", "0.8")
    spelled = ("-f", "0", "--disable_tta", "-step_size", "0.8")  # which is --fast
    command(one, tmp_path, model, *spelled, "--continue_prediction")
    trained = shutil.copytree(model, tmp_path / "anew" / model.name)
    content = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    next(iter(content["network_weights"].values())).add_(0.1)
    torch.save(content, trained / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(SystemExit):
        command(one, tmp_path, trained, *same, "--continue_prediction")
    assert "options (weights)" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "anew")
    plans = json.loads((tmp_path / "plans.json").read_text())
    (tmp_path / "plans.json").write_text(json.dumps(plans | {"plans_name": "other"}))
    assert "holds masks of another model" in refused(*same)
    (tmp_path / "plans.json").write_text("half writ")  # by a killed run
    command(one, tmp_path, model, *same, "--continue_prediction")
    assert {file.name for file in tmp_path.iterdir()} == before


def test_what_an_earlier_model_left_is_not_taken_for_done(model, images, tmp_path, capsys):
    """The run that replaces it may fail, or be killed, before it comes to a case."""
    inputs = shutil.copytree(images, tmp_path / "images")
    out = tmp_path / "out"
    command(inputs, out, model, "--fast", "--save_probabilities")
    (inputs / "small_0000.png").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        command(inputs, out, model, "--disable_tta")
    assert not list(out.glob("small.*"))
    assert not list(out.glob("*.npz"))  # of another model than the masks
    shutil.copy(images / "small_0000.png", inputs)
    command(inputs, out, model, "--disable_tta", "--continue_prediction")
    assert f"1 of {len(SIZES)} cases" in capsys.readouterr().out
    # A part alone, by other options: nobody can go on there as if all masks were of one kind.
    one = [inputs / "small_0000.png"]
    command(one, out, model, "--fast")
    for options in ("--fast", "--disable_tta"):
        with pytest.raises(SystemExit):
            command(inputs, out, model, options, "--continue_prediction")
    command(inputs, out, model, "--fast")
    command(inputs, out, model, "--fast", "--continue_prediction")
    command(one, out, model, "--fast")
    command(inputs, out, model, "--fast", "--continue_prediction")


def test_another_prediction_into_the_same_folder_ends_without_a_trace(model, images, tmp_path):
    """As the parts of ``-num_parts`` do: the shorter part is done before the longer one writes."""
    predictor = Predictor(model, (0,), mirror=False)
    first, second = (find_cases([images / f"{n}_0000.png"], ".png") for n in ("large", "small"))
    others = []

    def begin_the_other(_):
        if not others:
            others.append(predict_cases(predictor, second, tmp_path))

    course = predict_cases(predictor, first, tmp_path, on_progress=begin_the_other)
    assert [course.failed, others[0].failed] == [{}, {}]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.png", "small.png"]


def test_what_fails_is_named_and_does_not_stop_the_others(model, images, tmp_path, capsys):
    broken = shutil.copytree(images, tmp_path / "images")
    (broken / "b_0000.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(broken / "rgb_0000.png")
    with pytest.raises(SystemExit) as stopped:
        command(broken, tmp_path / "out", model)
    out, said = capsys.readouterr()
    assert "4 of 6 cases in" in out
    assert f"Masks: {tmp_path / 'out'}" in out
    assert stopped.value.code == 2
    assert len(said.strip().splitlines()) == 1
    assert "2 of 6 cases failed: b: " in said
    assert len(list((tmp_path / "out").glob("*.png"))) == len(SIZES)
    with pytest.raises(SystemExit):
        command([broken / "rgb_0000.png"], tmp_path / "out", model)
    assert "it has 3 channels; the model takes 1" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_one_line(model, images, tmp_path, capsys):
    (tmp_path / "masks").touch()
    with pytest.raises(SystemExit):
        command(images, tmp_path / "masks", model, "--fast")
    assert "masks cannot be written to: " in capsys.readouterr().err


def test_parts_share_the_cases(model, images, tmp_path):
    for part in ("0", "1", "2"):
        command(images, tmp_path / part, model, "-num_parts", "3", "-part_id", part, "--fast")
    found = [file.stem for part in "012" for file in (tmp_path / part).glob("*.png")]
    assert sorted(found) == sorted(SIZES)


def test_a_model_is_found_by_its_dataset(exporter, model, images, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(exporter / "results"))
    arguments = ["-i", images / "small_0000.png", "-o", tmp_path, "-device", "cpu"]
    call(predict_command, *arguments, "-d", "900", "-p", "nnUNetPlans_two_folds")
    assert (tmp_path / "small.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["-m", "nowhere"], "there is no trained model in nowhere"),
        (["-d", "900", "-p", "nnUNetPlans_other"], f"no model {TRAINER}__nnUNetPlans_other__2d in"),
        (["-d", "900", "-p", "nnUNetPlans_x"], "; there are: nnUNetTrainer"),  # and no other folder
        (["-d", "901", "-p", "nnUNetPlans_two_folds"], "dataset 901 is not in"),
        (["-d", "900"], "say which model"),
        (["-m", "MODEL", "-p", "nnUNetPlans_two_folds"], "leave -d and -p away"),
        (["-m", "MODEL", "-f", "2"], "no checkpoint_final.pth of fold 2; there are: 0, 1"),
        (["-m", "MODEL", "-step_size", "1.5"], "step size 1.5"),
        (["-m", "MODEL", "-step_size", "0"], "step size 0.0"),
        (["-m", "MODEL", "-num_parts", "2", "-part_id", "2"], "-part_id"),
        (["-m", "MODEL", "-batch_size", "0"], "batch size 0"),
        (["-m", "MODEL", "-chk", "**.pth"], "has no **.pth of fold any"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    arguments, match, exporter, model, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("nnUNet_results", str(exporter / "results"))
    (model.parent / "a_folder_of_masks").mkdir(exist_ok=True)
    given = [str(model) if argument == "MODEL" else argument for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        call(predict_command, "-i", images, "-o", tmp_path / "o", "-device", "cpu", *given)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert match in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_cases_are_found_as_nnunet_names_them(images, tmp_path):
    names = {case.name for case in find_cases([images], ".png")}
    assert names == set(SIZES)
    for name in ("x_0001.png", "x_0000.png", "y_0000.png", "notes.txt"):
        (tmp_path / name).touch()
    assert find_cases([tmp_path], ".png") == [
        Case("x", (tmp_path / "x_0000.png", tmp_path / "x_0001.png")),
        Case("y", (tmp_path / "y_0000.png",)),
    ]
    (tmp_path / "free.png").touch()
    assert find_cases([tmp_path / "free.png"], ".png") == [Case("free", (tmp_path / "free.png",))]
    numbered, nameless = (tmp_path / "hidden" / name for name in ("_0000.png", ".png"))
    numbered.parent.mkdir()
    for file in (numbered, nameless):
        file.touch()
    assert find_cases([numbered], ".png") == [Case("_0000", (numbered,))]
    with pytest.raises(UserError, match=r"has no name before '\.png'"):
        find_cases([nameless], ".png")
    with pytest.raises(UserError, match=r"call it free_0000\.png"):
        find_cases([tmp_path], ".png")
    (tmp_path / "free_0000.png").touch()
    with pytest.raises(UserError, match=r"free\.png has no .*, and free_0000\.png is there"):
        find_cases([tmp_path], ".png")
    with pytest.raises(UserError, match="no image"):
        find_cases([tmp_path / "not there_0000.png"], ".png")
    with pytest.raises(UserError, match="is a folder; one folder is expected, or files"):
        find_cases([images, tmp_path], ".png")
    with pytest.raises(UserError, match=r"end in '\.png'"):
        find_cases([tmp_path / "notes.txt"], ".png")
    other = tmp_path / "other" / "y_0000.png"
    other.parent.mkdir()
    other.touch()
    with pytest.raises(UserError, match="would both become"):
        find_cases([tmp_path / "y_0000.png", other], ".png")
    with pytest.raises(UserError, match="would be channels of one case"):
        find_cases([tmp_path / "x_0001.png", other.rename(other.with_name("x_0000.png"))], ".png")
    (tmp_path / "x_0003.png").touch()
    with pytest.raises(UserError, match="case x has the channels 0000, 0001, 0003, and not 0002"):
        find_cases([tmp_path / f"x_000{channel}.png" for channel in (0, 1, 3)], ".png")


def test_arrays_give_what_files_give_from_several_threads(model, images, stocks):
    predictor = Predictor(model, batch_size=3)
    assert not any("lora" in name for name, _ in predictor.ensemble.networks[0].named_modules())
    pixels = {name: np.asarray(Image.open(images / f"{name}_0000.png"))[None] for name in SIZES}
    begin = threading.Barrier(4)

    def predict(name):
        begin.wait()
        return predictor.predict(pixels[name], probabilities=True)

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(SIZES, pool.map(predict, SIZES), strict=True))
    for name, (labels, probabilities) in found.items():
        assert (labels == read(stocks, name)).all()
        assert probabilities.shape == (3, *SIZES[name])
        assert (predictor.predict(pixels[name]) == labels).all()
    for again in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor))):
        assert (again.predict(pixels["small"]) == found["small"][0]).all()


def test_a_volume_is_its_slices(model):
    predictor = Predictor(model, (0,), mirror=False, batch_size=7)
    random = np.random.default_rng(1)
    volume = random.normal(size=(1, 3, 40, 36)).astype(np.float32)
    labels = predictor.predict(volume)
    stock = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0,))
    properties = {"spacing": [1.0, 1.0, 1.0]}
    assert (labels == stock.predict_single_npy_array(volume, properties)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_has_no_mask(value, model):
    """One such pixel makes all of a z-scored image NaN, which has no largest class."""
    image = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    image[0, 5, 5] = value
    with pytest.raises(UserError, match="it has NaN or infinite pixels"):
        Predictor(model).predict(image)


def test_logits_that_are_nan_are_no_mask(model):
    """Background would be the largest class everywhere."""
    predictor = Predictor(model, (0,))
    with torch.no_grad():
        for parameter in predictor.ensemble.networks[0].head.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(UserError, match="logits are NaN or infinite"):
        predictor.predict(np.random.default_rng(0).normal(size=(1, 40, 40)))


def test_an_image_without_pixels_is_refused(model):
    for shape, spacing in (((1, 0, 10), None), ((1, 8, 8), (1e-9, 1))):
        with pytest.raises(UserError, match="cannot be preprocessed"):
            Predictor(model).predict(np.ones(shape, np.float32), spacing)


@pytest.mark.parametrize("shape", [(8, 8), (1, 2, 3, 8, 8)])
def test_arrays_of_another_form_are_refused(shape, model):
    with pytest.raises(UserError, match="is expected"):
        Predictor(model).predict(np.zeros(shape))


def test_a_batch_that_is_too_large_is_halved(model, images, stocks, tmp_path):
    predictor = Predictor(model, batch_size=8)
    seen = []

    def with_little_memory(network):
        forward = network.forward

        def run(images):
            seen.append(len(images))
            if len(images) > limit:
                raise torch.OutOfMemoryError
            return forward(images)

        network.forward = run

    for network in predictor.ensemble.networks:
        with_little_memory(network)
    limit = 2
    course = predict_cases(predictor, find_cases([images], ".png"), tmp_path)
    assert not course.failed
    assert {8, 4, 2} <= set(seen)
    assert all((read(tmp_path, name) == read(stocks, name)).all() for name in SIZES)
    limit = 0
    course = predict_cases(predictor, find_cases([images], ".png"), tmp_path)
    assert course.failed.keys() == SIZES.keys()
    with pytest.raises(UserError, match="too small for one tile of 32 x 32 px"):
        predictor.predict(np.zeros((1, 32, 32), np.float32))


def test_logits_that_do_not_fit_the_device_are_summed_on_the_cpu(
    model, images, stocks, tmp_path, monkeypatch
):
    tries, zeros = [], Canvas._zeros

    def with_little_memory(canvas):
        tries.append(canvas)
        if len(tries) % 2:
            raise torch.OutOfMemoryError
        return zeros(canvas)

    monkeypatch.setattr(Canvas, "_zeros", with_little_memory)
    course = predict_cases(Predictor(model), find_cases([images], ".png"), tmp_path)
    assert not course.failed
    assert len(tries) == 2 * len(SIZES)
    assert all((read(tmp_path, name) == read(stocks, name)).all() for name in SIZES)


def test_a_case_that_cannot_be_summed_does_not_stop_the_others(
    model, images, stocks, tmp_path, monkeypatch
):
    zeros = Canvas._zeros

    def fail(canvas):
        if canvas.image.shape[-1] == 45:
            raise torch.OutOfMemoryError("no memory")
        return zeros(canvas)

    monkeypatch.setattr(Canvas, "_zeros", fail)
    told = []
    course = predict_cases(
        Predictor(model, batch_size=5),
        find_cases([images], ".png"),
        tmp_path,
        on_progress=told.append,
    )
    assert course.failed == {"large": "no memory"}
    assert told == sorted(told)
    rest = SIZES.keys() - {"large"}
    assert {file.stem for file in tmp_path.iterdir()} == rest
    assert all((read(tmp_path, name) == read(stocks, name)).all() for name in rest)


def test_a_network_that_fails_fails_the_cases_of_its_batch(model, images, stocks, tmp_path):
    predictor = Predictor(model, batch_size=1)
    network = predictor.ensemble.networks[1]
    forward, calls = network.forward, []

    def fail_once(images):
        calls.append(images)
        if len(calls) == 3:
            raise RuntimeError("of the device")
        return forward(images)

    network.forward = fail_once
    course = predict_cases(predictor, find_cases([images], ".png"), tmp_path)
    first, *rest = (case.name for case in find_cases([images], ".png"))
    assert course.failed == {first: "of the device"}
    assert all((read(tmp_path, name) == read(stocks, name)).all() for name in rest)


def test_finished_logits_do_not_stay_on_the_device(model, images):
    predictor = Predictor(model)
    canvas, _ = predictor.preprocess(np.zeros((1, 1, 40, 40), np.float32), {"spacing": [1, 1, 1]})
    of = predictor.ensemble
    (done,) = predicted([canvas], of.networks, predictor.mirrors, 4, predictor.device)
    assert done._sums == []
    assert done.result().device.type == "cpu"


@pytest.mark.parametrize("name", ["small.png", "small.npz", "small.pkl", "dataset.json"])
def test_what_no_prediction_wrote_is_never_replaced(model, images, tmp_path, name, capsys):
    """Such as the labels of a training case, or a data set's own dataset.json."""
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(SystemExit):
        command([images / "small_0000.png"], tmp_path, model, "--save_probabilities")
    assert f"{tmp_path / name} would be replaced, and no prediction" in capsys.readouterr().err
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"somebody's"]
    (tmp_path / name).rename(tmp_path / "other.png")
    for _ in range(2):
        command([images / "small_0000.png"], tmp_path, model)


def test_a_mask_never_replaces_an_image(model, images, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    shutil.copy(images / "small_0000.png", photo)
    before = photo.read_bytes()
    for more in ([], ["--continue_prediction"]):
        with pytest.raises(SystemExit) as stopped:
            command([photo], tmp_path, model, *more)
        assert stopped.value.code == 2
        assert "would replace the image" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]


def test_a_model_is_loaded_where_nnunet_compiles(model, images, stocks, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "t")
    command([images / "small_0000.png"], tmp_path, model)
    assert (read(tmp_path, "small") == read(stocks, "small")).all()
    assert not any("lora" in n for n, _ in Predictor(model).ensemble.networks[0].named_modules())


def test_another_checkpoint_that_is_there_is_named(tmp_path):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_best.pth").touch()
    with pytest.raises(UserError, match=r"there are: none \(checkpoint_best\.pth is there: -chk\)"):
        folds_of(tmp_path, None, "checkpoint_final.pth")


def test_folders_beside_the_folds_are_none(tmp_path):
    for name in ("fold_0", "fold_10", "fold_2", "fold_0_backup", "fold_0_1", "fold_all"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.pth").touch()
    assert sorted(folds_of(tmp_path, None, "a.pth")) == ["0", "10", "2"]
    with pytest.raises(UserError, match=r"of fold 0_1; there are: 0, 10, 2, all$"):
        folds_of(tmp_path, ["0_1"], "a.pth")
    assert folds_of(tmp_path, ["2", 0, "2", "0"], "a.pth") == ["2", "0"]  # none counts twice
    for two in (np.array([0, 2]), torch.tensor([0, 2]), (fold for fold in (0, 2)), {0, 2}):
        assert folds_of(tmp_path, two, "a.pth") == [0, 2]
    for one in (np.array(2), np.int64(2), torch.tensor(2)):
        assert folds_of(tmp_path, one, "a.pth") == [2]
    with pytest.raises(UserError, match=r"folds 0\.0: their numbers, or 'all', are expected"):
        folds_of(tmp_path, 0.0, "a.pth")


def test_folds_on_a_part_of_anothers_cases_are_not_averaged_unasked(model, tmp_path):
    copied = shutil.copytree(model, tmp_path / model.name)
    for fold in ("fold_0", "fold_1"):
        shutil.rmtree(copied / fold / "validation", ignore_errors=True)
        written = write_fold(tmp_path / fold, 0, {"a": [0.5], "b": [0.5]})
        shutil.move(written / "validation", copied / fold)
    with pytest.raises(UserError, match=r"folds 0, 1 of .* validated the same cases"):
        Predictor(copied)
    with pytest.raises(UserError, match=r"folds 0, 1 of .* validated the same cases"):
        export_vit(copied, tmp_path / "out.zip")
    assert len(Predictor(copied, ["1", "0"]).ensemble.networks) == 2
    assert export_vit(copied, tmp_path / "out.zip", folds=["0", "1"]).is_file()


def test_the_command_lays_a_manifest_beside_the_masks(model, images, tmp_path):
    more = ("-i", images, "-o", tmp_path, "-m", model, "-device", "cpu", "--manifest")
    call(predict_command, *more)
    (tmp_path / "small.png").unlink()
    call(predict_command, *more, "--continue_prediction")
    text = (tmp_path / "prediction_manifest.json").read_text()
    first, second = json.loads(text)["runs"]
    assert first["cases"] == sorted(SIZES)
    assert second["cases"] == ["small"]
    assert first["ended"]
    assert first["failed"] == {}
    assert len(first["model"]["checkpoints"]) == 2
    assert str(images.parent) not in text
    assert "--manifest" in first["command"]
    call(predict_command, *more[:-1], "-f", "0")  # replaces the masks, and does not ask for one
    third = json.loads((tmp_path / "prediction_manifest.json").read_text())["runs"][2]
    assert [file["file"] for file in third["model"]["checkpoints"]] == [
        "fold_0/checkpoint_final.pth"
    ]


def test_a_manifest_that_cannot_be_written_hides_nothing(
    model, images, tmp_path, monkeypatch, capsys
):
    """As on a disk that the masks have filled."""

    def is_full(*_):
        raise UserError("prediction_manifest.json cannot be written: No space left on device")

    monkeypatch.setattr("nnunet_vit_trainer.sharing.manifest.Manifest.end", is_full)
    (tmp_path / "in").mkdir()
    shutil.copy(images / "small_0000.png", tmp_path / "in")
    for broken, said in ((False, "manifest.json cannot be"), (True, "1 of 2 cases failed: b: ")):
        if broken:
            (tmp_path / "in" / "b_0000.png").write_bytes(b"no picture")
        with pytest.raises(SystemExit) as stopped:
            command(tmp_path / "in", tmp_path / f"out{broken}", model, "--manifest", "-f", "0")
        assert stopped.value.code == 2
        table, error = capsys.readouterr()
        assert f"1 of {1 + broken} cases in " in table
        assert f"Masks: {tmp_path}" in table
        assert said in error
        assert error.endswith("manifest.json cannot be written: No space left on device\n")


def test_progress_counts_cases_and_never_goes_back(model, images, tmp_path):
    told = []
    predictor = Predictor(model, batch_size=3)
    predict_cases(predictor, find_cases([images], ".png"), tmp_path, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == len(SIZES)
    assert len(told) > len(SIZES)
