"""Neighbouring slices as channels, of data sets and of images to predict."""

import json
import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_vit_trainer.commands.neighbours import neighbours
from nnunet_vit_trainer.neighbours.fingerprint import FILE, write_fingerprint
from nnunet_vit_trainer.neighbours.volumes import shifted
from nnunet_vit_trainer.plans.neighbours import Neighbours, check_axis, shown_channel
from vit_backbone import UserError

INTENSITIES = "foreground_intensity_properties_per_channel"
SOURCE = "Dataset042_Two organs"
SPACING, ORIGIN = (0.5, 0.75, 3.0), (1.0, -2.0, 30.0)


def volume(slices, value=0, axis=0, dtype=np.int16):
    """Every slice holds its own number, plus the value."""
    shape = [5, 6, 7]
    shape[axis] = slices
    numbers = np.arange(slices).reshape([-1 if i == axis else 1 for i in range(3)])
    image = sitk.GetImageFromArray((np.zeros(shape) + numbers + value).astype(dtype))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


def write(folder, **images):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def along(file, axis=0):
    """The number of each slice."""
    return np.moveaxis(read(file), axis, 0)[:, 0, 0].tolist()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A raw data set of two channels, planned, with a test case."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    raw, preprocessed = tmp_path / "raw" / SOURCE, tmp_path / "preprocessed" / SOURCE
    cases = {"a b_0000": volume(4), "a b_0001": volume(4, 100), "c_1_0000": volume(3)}
    write(raw / "imagesTr", **cases, c_1_0001=volume(3, 100))
    write(raw / "imagesTs", t_0000=volume(2), t_0001=volume(2, 100))
    write(raw / "labelsTr", **{"a b": volume(4), "c_1": volume(3)})
    dataset = {
        "channel_names": {"1": "T2", "0": "CT"},
        "labels": {"background": 0, "one": 1},
        "file_ending": ".nii.gz",
        "numTraining": 2,
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    preprocessed.mkdir()
    plan(tmp_path)
    of_channels = {"0": {"mean": 1.5}, "1": {"mean": 101.5}}
    write_fingerprint({"spacings": [[3.0, 0.75, 0.5]], INTENSITIES: of_channels}, preprocessed)
    return tmp_path


def plan(home, axis=0, reader="SimpleITKIO"):
    order = [axis, *({0, 1, 2} - {axis})]
    plans = {"transpose_forward": order, "image_reader_writer": reader}
    (home / "preprocessed" / SOURCE / "nnUNetPlans.json").write_text(json.dumps(plans))


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_neighbours_vit", *map(str, arguments)])
    neighbours()


def test_slices_beyond_the_ends_are_the_outermost_ones():
    values = np.arange(4)[:, None] * np.ones((1, 2), int)
    assert shifted(values, -1, 0)[:, 0].tolist() == [0, 0, 1, 2]
    assert shifted(values, 2, 0)[:, 0].tolist() == [2, 3, 3, 3]
    assert shifted(values.T, 1, 1)[0].tolist() == [1, 2, 3, 3]
    assert list(Neighbours(2, 0).offsets) == [-2, -1, 0, 1, 2]


def test_a_data_set_gets_its_neighbours_as_channels(home, monkeypatch, capsys):
    run(monkeypatch, 42, "-d", 43)
    new = home / "raw" / "Dataset043_Two organs_neighbours1"
    said = capsys.readouterr().out
    assert "each slice and 1 on either side, along axis 0 of (z, y, x)" in said
    assert "nnUNetv2_plan_and_preprocess -d 43 -c 2d" in said
    images = sorted(file.name for file in (new / "imagesTr").iterdir())
    assert images == [f"{case}_{n:04d}.nii.gz" for case in ("a b", "c_1") for n in range(6)]
    channels = [along(new / "imagesTr" / f"a b_{number:04d}.nii.gz") for number in range(6)]
    assert channels[:3] == [[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3]]
    assert channels[3:] == [[value + 100 for value in channel] for channel in channels[:3]]
    assert along(new / "imagesTs" / "t_0002.nii.gz") == [1, 1]
    moved = sitk.ReadImage(str(new / "imagesTr" / "a b_0000.nii.gz"))
    assert (moved.GetSpacing(), moved.GetOrigin()) == (SPACING, ORIGIN)
    assert moved.GetPixelID() == sitk.sitkInt16
    labels = home / "raw" / SOURCE / "labelsTr" / "c_1.nii.gz"
    assert (new / "labelsTr" / "c_1.nii.gz").read_bytes() == labels.read_bytes()
    dataset = json.loads((new / "dataset.json").read_text())
    assert [*dataset["channel_names"].values()] == ["CT"] * 3 + ["T2"] * 3
    assert dataset["neighbours"] == {"count": 1, "axis": 0, "of": SOURCE}
    assert dataset["labels"] == {"background": 0, "one": 1}


def test_slices_lie_beside_each_other_where_nnunet_cuts_them(home, monkeypatch):
    plan(home, axis=2)
    images = home / "raw" / SOURCE / "imagesTr"
    shutil.rmtree(images)
    write(images, **{f"s_000{c}": volume(3, axis=2) for c in (0, 1)})
    write(home / "raw" / SOURCE / "labelsTr", s=volume(3, axis=2))
    run(monkeypatch, 42, "-d", 43, "-k", 2)
    new = home / "raw" / "Dataset043_Two organs_neighbours2" / "imagesTr"
    channels = [along(new / f"s_{number:04d}.nii.gz", 2) for number in range(5)]
    assert channels == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 2], [2, 2, 2]]


def test_lists_of_files_are_followed(home, monkeypatch):
    raw = home / "raw" / SOURCE
    elsewhere = home / "else where"
    shutil.move(raw / "imagesTr", elsewhere)
    dataset = json.loads((raw / "dataset.json").read_text())
    images = [str(elsewhere / f"a b_000{c}.nii.gz") for c in (0, 1)]
    dataset["dataset"] = {"mine": {"images": images, "label": "labelsTr/a b.nii.gz"}}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    run(monkeypatch, SOURCE, "-d", 43)
    new = home / "raw" / "Dataset043_Two organs_neighbours1"
    assert along(new / "imagesTr" / "mine_0000.nii.gz") == [0, 0, 1, 2]
    assert (new / "labelsTr" / "mine.nii.gz").is_file()
    assert "dataset" not in json.loads((new / "dataset.json").read_text())


@pytest.fixture
def model(home, monkeypatch):
    """A folder with a converted data set's dataset.json, as a trained model's."""
    run(monkeypatch, 42, "-d", 43)
    folder = home / "my model"
    folder.mkdir()
    shutil.copy(home / "raw" / "Dataset043_Two organs_neighbours1" / "dataset.json", folder)
    return folder


def test_images_to_predict_are_written_as_the_data_set_s_own(home, model, monkeypatch, capsys):
    source, out = home / "raw" / SOURCE / "imagesTs", home / "out" / "stacked"
    run(monkeypatch, "-i", source, "-o", out, "-m", model)
    own = home / "raw" / "Dataset043_Two organs_neighbours1" / "imagesTs"
    assert sorted(f.name for f in out.iterdir()) == sorted(f.name for f in own.iterdir())
    for file in own.iterdir():
        assert np.array_equal(read(out / file.name), read(file))
    assert f"-m '{model}'" in capsys.readouterr().out


def refusal(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_what_was_converted_or_lacks_a_channel_is_not_converted_again(
    home, model, monkeypatch, capsys
):
    converted = home / "raw" / "Dataset043_Two organs_neighbours1"
    said = refusal(monkeypatch, capsys, "-i", converted / "imagesTs", "-o", home / "o", "-m", model)
    assert "'t' has 6 channels, 2 are expected" in said
    images = home / "raw" / SOURCE / "imagesTs"
    (images / "t_0000.nii.gz").unlink()
    said = refusal(monkeypatch, capsys, "-i", images, "-o", home / "o", "-m", model)
    assert "t_0001.nii.gz: channel 0000 of 't' is not there" in said
    preprocessed = home / "preprocessed"
    shutil.copytree(preprocessed / SOURCE, preprocessed / converted.name, dirs_exist_ok=True)
    said = refusal(monkeypatch, capsys, 43, "-d", 44)
    assert "has neighbours as channels already" in said
    assert not (home / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((42,), "DATASET and -d NEW_ID are needed"),
        ((42, "-d", 42), "is there already; 43 is free"),
        ((42, "-d", 43, "-k", 0), "1 to 5 neighbours"),
        ((42, "-d", 43, "-o", "x"), "-o goes with -i"),
        ((42, "-d", 43, "-p", "other"), "run nnUNetv2_plan_and_preprocess --no_pp"),
        (("-i", "x", "-o", "y"), "-i goes with -o OUT and -m MODEL_FOLDER"),
        ((42, "-i", "x", "-o", "y", "-m", "z"), "leave DATASET, -d and -k away"),
        (("-i", "x", "-o", "y", "-m", "z"), "dataset.json cannot be read"),
    ],
)
def test_wrong_calls_are_one_line(arguments, said, home, monkeypatch, capsys):
    err = refusal(monkeypatch, capsys, *arguments)
    assert said in err
    assert err.count("\n") == 1


def test_flat_images_and_readers_that_turn_them_are_refused(home, monkeypatch, capsys):
    plan(home, reader="NibabelIOWithReorient")
    assert "NibabelIOWithReorient" in refusal(monkeypatch, capsys, 42, "-d", 43)
    plan(home)
    images = home / "raw" / SOURCE / "imagesTr"
    write(images, c_1_0001=volume(1))
    said = refusal(monkeypatch, capsys, 42, "-d", 43)
    assert "c_1_0001.nii.gz has the shape (1, 6, 7)" in said
    (images / "c_1_0001.nii.gz").write_text("no image")
    assert "c_1_0001.nii.gz cannot be read" in refusal(monkeypatch, capsys, 42, "-d", 43)
    assert [f.name for f in (home / "raw").iterdir()] == [SOURCE]


def test_a_label_that_is_missing_leaves_nothing(home, monkeypatch, capsys):
    (home / "raw" / SOURCE / "labelsTr" / "c_1.nii.gz").unlink()
    assert "is not written" in refusal(monkeypatch, capsys, 42, "-d", 43)
    said = refusal(monkeypatch, capsys, "-i", home, "-o", home / "o", "-m", home / "raw" / SOURCE)
    assert "no data set that nnUNetv2_neighbours_vit made" in said
    assert [f.name for f in (home / "raw").iterdir()] == [SOURCE]


def test_a_case_without_its_last_channel_is_refused(home, monkeypatch, capsys):
    for folder, case in (("imagesTs", "t"), ("imagesTr", "c_1")):
        (home / "raw" / SOURCE / folder / f"{case}_0001.nii.gz").unlink()
        said = refusal(monkeypatch, capsys, 42, "-d", 43)
        assert f"'{case}' has 1 channels, 2 are expected" in said
    assert [f.name for f in (home / "raw").iterdir()] == [SOURCE]


def test_a_folder_without_test_images_is_none(home, monkeypatch):
    for file in (home / "raw" / SOURCE / "imagesTs").iterdir():
        file.unlink()
    run(monkeypatch, 42, "-d", 43)
    new = home / "raw" / "Dataset043_Two organs_neighbours1"
    assert sorted(file.name for file in new.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]


@pytest.mark.parametrize("order", [[], [0, 1], [0, 0, 1], ["0", "1", "2"], {}, 0])
def test_plans_without_an_order_of_the_axes_are_refused(order, home, monkeypatch, capsys):
    plans = {"transpose_forward": order, "image_reader_writer": "SimpleITKIO"}
    (home / "preprocessed" / SOURCE / "nnUNetPlans.json").write_text(json.dumps(plans))
    said = refusal(monkeypatch, capsys, 42, "-d", 43)
    assert f"transpose_forward {order}: 0, 1 and 2 in some order are expected" in said


def test_files_that_lack_a_key_are_named(home, monkeypatch, capsys):
    other = home / "preprocessed" / SOURCE / "dataset_fingerprint.json"
    other.write_text('{"spacings": []}')
    said = refusal(monkeypatch, capsys, 42, "-d", 43, "-p", "dataset_fingerprint")
    assert "is no plans file of nnU-Net: it lacks image_reader_writer, transpose_forward" in said
    file = home / "raw" / SOURCE / "dataset.json"
    content = json.loads(file.read_text())
    del content["file_ending"]
    file.write_text(json.dumps(content))
    assert "names no file_ending" in refusal(monkeypatch, capsys, 42, "-d", 43)


def test_a_number_that_was_taken_meanwhile_is_refused(home, monkeypatch, capsys):
    write, other = sitk.WriteImage, home / "raw" / "Dataset043_Other"

    def and_another(*of):
        other.mkdir(exist_ok=True)
        write(*of)

    monkeypatch.setattr(sitk, "WriteImage", and_another)
    assert "Dataset043_Other is there already" in refusal(monkeypatch, capsys, 42, "-d", 43)
    assert {folder.name for folder in (home / "raw").iterdir()} == {SOURCE, other.name}


def test_what_cannot_be_written_is_one_line(home, monkeypatch, capsys):
    def is_full(*_):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", is_full)
    said = refusal(monkeypatch, capsys, 42, "-d", 43)
    assert "a b_0000.nii.gz is not written: No space left on device" in said
    assert [f.name for f in (home / "raw").iterdir()] == [SOURCE]


def test_all_channels_of_ct_have_one_window(home, monkeypatch, capsys):
    """nnU-Net would take a neighbour's from what lies beside the object."""
    run(monkeypatch, 42, "-d", 43)
    made = home / "preprocessed" / "Dataset043_Two organs_neighbours1" / FILE
    fingerprint = json.loads(made.read_text())
    assert fingerprint["spacings"] == [[3.0, 0.75, 0.5]]
    means = {channel: of["mean"] for channel, of in fingerprint[INTENSITIES].items()}
    assert means == {"0": 1.5, "1": 1.5, "2": 1.5, "3": 101.5, "4": 101.5, "5": 101.5}
    source = home / "preprocessed" / SOURCE / FILE
    source.write_text(json.dumps({INTENSITIES: {"0": {}}}))
    for said in ("is not of the 2 channels", f"there is no {source}, which the CT channels"):
        with pytest.raises(SystemExit):
            run(monkeypatch, 42, "-d", 44)
        assert said in capsys.readouterr().err
        source.unlink(missing_ok=True)
    assert sorted(f.name for f in (home / "raw").iterdir())[1:] == [made.parent.name]
    file = home / "raw" / SOURCE / "dataset.json"
    file.write_text(file.read_text().replace('"CT"', '"T1"'))
    run(monkeypatch, 42, "-d", 44)  # nnU-Net normalises each image by itself
    assert not (home / "preprocessed" / "Dataset044_Two organs_neighbours1").exists()


def test_plans_that_cut_elsewhere_are_refused(tmp_path):
    plans = {"transpose_forward": [1, 0, 2], "plans_name": "P"}
    dataset = {"neighbours": {"count": 2, "axis": 1, "of": SOURCE}}
    check_axis(dataset, plans, tmp_path)
    check_axis({}, plans, tmp_path)
    assert (shown_channel(dataset), shown_channel({})) == (2, 0)
    with pytest.raises(UserError, match=r"along axis 0 of \(z, y, x\), and P cuts along axis 1"):
        check_axis({"neighbours": {"count": 1, "axis": 0}}, plans, tmp_path)
    with pytest.raises(UserError, match="count and axis are expected"):
        check_axis({"neighbours": 1}, plans, tmp_path)
