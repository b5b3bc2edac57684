"""Patch features as a picture: of a trained model beside what it was before, or of a config."""

import shutil

import numpy as np
import pytest
import SimpleITK
import torch
import yaml
from a_validation import size_of, write
from PIL import Image
from trained_results import DATASET_JSON, PLANS, call, write_results

from nnunet_vit_trainer.checkpoints.model_folder import read_model
from nnunet_vit_trainer.commands.features import features
from nnunet_vit_trainer.pictures.backbones import trained_views
from nnunet_vit_trainer.pictures.features import (
    LONGEST_SIDE,
    FeatureRow,
    Features,
    colours_of,
    draw_features,
    patch_features,
)
from nnunet_vit_trainer.pictures.inputs import normalised, preprocessed
from vit_backbone import UserError, create_backbone, load_weights


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A picture with a dark and a light half, which is no whole number of patches."""
    file = tmp_path_factory.mktemp("image") / "my case_0000.png"
    grey = np.random.default_rng(0).normal(60, 20, (70, 100))
    grey[:, 50:] += 100
    write(file, np.clip(grey, 0, 255))
    return file


def views_of(folder):
    plans, dataset = read_model(folder)
    return trained_views(plans, dataset, folder / "fold_0" / "checkpoint_final.pth")


def tokens_of(view, image):
    return patch_features(view.backbone, view.input_norm, image, view.tap).tokens


def test_features_cover_the_image_and_not_its_padding():
    backbone = create_backbone("test_vit", pretrained=False)[0].eval()
    found = patch_features(backbone, None, torch.zeros(3, 70, 100), 3)
    assert found.tokens.shape[:2] == (5, 7)
    assert found.covered == (70 / 80, 100 / 112)


def test_a_large_image_is_made_smaller_before_the_backbone():
    backbone = create_backbone("test_vit", pretrained=False)[0].eval()
    found = patch_features(backbone, None, torch.zeros(3, 32, 4 * LONGEST_SIDE), 3)
    assert found.tokens.shape[:2] == (1, LONGEST_SIDE // 16)


def test_the_first_component_is_brightness_and_colours_are_common():
    """A step along one direction is seen in both, though one of them lies elsewhere."""
    steps = torch.zeros(4, 8, 16)
    steps[:, 4:, 5] = 10
    steps += 0.01 * torch.randn(steps.shape, generator=torch.Generator().manual_seed(0))
    columns = [[Features(steps, (1, 1))], [Features(steps + 100, (1, 1))]]
    (first, second), share = colours_of(columns)
    assert np.abs(first[0].astype(int) - second[0]).max() <= 1
    light = first[0].mean(axis=2)
    assert abs(light[:, 4:].mean() - light[:, :4].mean()) > 100
    assert share > 0.99


def test_equal_features_have_equal_colours_each_time():
    tokens = torch.randn((6, 6, 16), generator=torch.Generator().manual_seed(0))
    once, again = (colours_of([[Features(tokens, (1, 1))]])[0][0][0] for _ in range(2))
    assert (once == again).all()
    flat, share = colours_of([[Features(torch.zeros(2, 2, 16), (1, 1))]])
    assert share == 0
    assert (flat[0][0] == flat[0][0][0, 0]).all()


@pytest.mark.parametrize("shape", [(50, 400), (400, 50), (1, 1)])
def test_any_shape_is_drawn(shape):
    of = Features(torch.randn(2, 3, 8), (0.9, 0.7))
    row = FeatureRow("a$b_c", np.zeros((*shape, 3), np.uint8), [of, of])
    drawn = draw_features([row, row], ["a", "b"], "said")
    assert drawn[:4] == b"\x89PNG"


def results(exporter, home, **options):
    """Write trained results, whose weight file lies beside them."""
    (home / "vit.pth").symlink_to(exporter / "vit.pth")
    return write_results(home, **options)


def test_the_plain_backbone_is_the_weight_file_and_the_trained_one_is_not(exporter, tmp_path):
    """The patch embedding of grey images trains beside LoRA: the file has it as it was."""
    folder = results(exporter, tmp_path)
    views, said = views_of(folder)
    assert [view.title for view in views] == ["pretrained", "with the trained LoRA"]
    assert said == ""
    file = create_backbone("test_vit", pretrained=False, in_chans=1, img_size=160)[0].eval()
    load_weights(file, exporter / "vit.pth")
    picture = torch.rand((1, 48, 48), generator=torch.Generator().manual_seed(0))
    plain, trained = (tokens_of(view, picture) for view in views)
    own = patch_features(file, None, picture, views[0].tap).tokens
    assert torch.allclose(plain, own, atol=1e-5)
    assert (trained - own).abs().max() > 0.1
    (tmp_path / "vit.pth").unlink()
    views, said = views_of(folder)
    assert len(views) == 2
    assert "the trained patch embedding in both" in said


def test_lora_comes_off_colours_without_the_weight_file(exporter, tmp_path, monkeypatch):
    monkeypatch.setitem(PLANS["configurations"]["2d"], "normalization_schemes", ["A"] * 3)
    monkeypatch.setitem(DATASET_JSON, "channel_names", {"0": "R", "1": "G", "2": "B"})
    folder = results(exporter, tmp_path, model={"input_norm": "none"}, in_chans=3)
    (tmp_path / "vit.pth").unlink()
    views, said = views_of(folder)
    assert said == ""
    file = create_backbone("test_vit", pretrained=False, img_size=160)[0].eval()
    load_weights(file, exporter / "vit.pth")
    picture = torch.rand((3, 48, 48), generator=torch.Generator().manual_seed(0))
    own = patch_features(file, None, picture, views[0].tap).tokens
    assert torch.allclose(tokens_of(views[0], picture), own, atol=1e-5)


@pytest.mark.parametrize(
    ("tune", "titles"),
    [("full", ["pretrained", "trained"]), ("frozen", ["pretrained, frozen"])],
)
def test_other_ways_of_training_are_told_apart(exporter, tmp_path, tune, titles):
    folder = results(exporter, tmp_path, in_chans=3, model={"tune": tune})
    assert [view.title for view in views_of(folder)[0]] == titles
    (tmp_path / "vit.pth").unlink()
    views, said = views_of(folder)
    assert len(views) == 1
    assert ("not as it was before" in said) == (tune == "full")


def test_the_command_draws_a_trained_model(trained_folder, image, tmp_path, capsys):
    out = tmp_path / "out.png"
    shutil.copytree(trained_folder, tmp_path / "run17")
    link = tmp_path / trained_folder.name
    link.symlink_to(tmp_path / "run17")
    call(features, image, "--results", link, "-f", "0", "-o", out)
    assert capsys.readouterr().out.strip() == str(out)
    width, height = size_of(out)
    assert width == 1000
    assert 250 < height < 450


def test_the_command_draws_a_config(image, exporter, tmp_path):
    config = tmp_path / "mine.yaml"
    model = {"backbone": "test_vit", "checkpoint_path": str(exporter / "vit.pth")}
    config.write_text(yaml.safe_dump({"model": model | {"model_path": "linear"}}))
    photograph = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 30), (200, 30, 60)).save(photograph)
    call(features, photograph, photograph, "--config", config, "-o", tmp_path / "rgb.png")
    call(features, image, "--config", config, "-o", tmp_path / "grey.png")
    assert size_of(tmp_path / "rgb.png")[0] == size_of(tmp_path / "grey.png")[0] == 1000
    for more in ([image], ["-f", "0"], ["-chk", "checkpoint_best.pth"]):
        with pytest.raises(SystemExit):
            call(features, photograph, *more, "--config", config, "-o", tmp_path / "mixed.png")
    assert not (tmp_path / "mixed.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone_0000.png"], "there is no image"),
        (["{image}", "-f", "3"], "of fold 3"),
        (["{image}", "-o", "{folder}"], "a file in a folder that is there"),
        (["{image}", "-o", "{folder}/a.pdf"], "a name that ends in .png"),
        (["{image}", "-o", "{image}"], "would replace an image"),
        (["{image}", "-slice", "2"], "has no slice 2"),
        (["{image}", "-slice", "0"], "has no slice 0"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(trained_folder, image, tmp_path, capsys, arguments, said):
    words = [word.format(image=image, folder=tmp_path) for word in arguments]
    with pytest.raises(SystemExit) as stopped:
        call(features, *words, "--results", trained_folder)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_image_is_read_as_the_model_reads_it_and_shown_as_it_is(trained_folder, image):
    plans, dataset = read_model(trained_folder)
    found = preprocessed("my case", [image], plans, dataset)
    assert found.image.shape == (70, 100, 3)
    assert abs(float(found.normalised.mean())) < 1e-3
    assert found.normalised.shape == (1, 70, 100)


def test_slices_are_those_of_the_whole_volume_though_the_model_crops_it(trained_folder, tmp_path):
    plans, dataset = read_model(trained_folder)
    plans |= {"image_reader_writer": "SimpleITKIO"}
    dataset |= {"file_ending": ".nii.gz"}
    volume = np.zeros((9, 12, 14), np.float32)
    random = np.random.default_rng(0)
    volume[4:8, 2:10, 3:11] = random.uniform(1, 2, (4, 8, 8))
    file = tmp_path / "a_0000.nii.gz"
    write(file, volume)
    for at, number in ((None, 7), (5, 5), (8, 8)):
        found = preprocessed("a", [file], plans, dataset, at)
        assert found.name == f"a, slice {number} of 9"
        of = volume[number - 1, 2:10, 3:11]
        assert np.corrcoef(of.ravel(), found.image[..., 0].ravel())[0, 1] > 0.99
        assert found.normalised.shape[0] == 1
    for empty in (1, 4, 9):
        with pytest.raises(UserError, match=r"is empty, .* take one of 5 to 8"):
            preprocessed("a", [file], plans, dataset, empty)
    with pytest.raises(UserError, match="has no slice 10; it has 1 to 9"):
        preprocessed("a", [file], plans, dataset, 10)


def test_pixels_that_are_vectors_are_one_line(trained_folder, tmp_path):
    plans, dataset = read_model(trained_folder)
    plans |= {"image_reader_writer": "SimpleITKIO"}
    file = tmp_path / "a_0000.nii.gz"
    colours = SimpleITK.GetImageFromArray(np.ones((8, 9, 3), np.float32), isVector=True)
    SimpleITK.WriteImage(colours, str(file))
    said = "it has a spacing of 2 axes for 3: are its pixels vectors"
    with pytest.raises(UserError, match=f"a_0000.nii.gz: {said}"):
        normalised(file)
    with pytest.raises(UserError, match=f"a: {said}"):
        preprocessed("a", [file], plans, dataset)


def test_what_a_model_cannot_preprocess_is_one_line_with_its_name(trained_folder, image, tmp_path):
    plans, dataset = read_model(trained_folder)
    (settings,) = plans["configurations"].values()
    cases = (
        ("ZScore", [1e9, 1e9], "nothing of it is left"),
        ("RGBTo01", [1.0, 1.0], "RGB images are uint 8"),
    )
    Image.fromarray(np.full((30, 40), 60000, np.uint16)).save(tmp_path / "b_0000.png")
    for scheme, spacing, said in cases:
        settings |= {"normalization_schemes": [f"{scheme}Normalization"], "spacing": spacing}
        with pytest.raises(UserError, match=rf"^b: it cannot be preprocessed .*\): .*{said}"):
            preprocessed("b", [tmp_path / "b_0000.png"], plans, dataset)
    with pytest.raises(UserError, match=r"^b: it has 1 channels; the model takes 2"):
        preprocessed("b", [image], plans, dataset | {"channel_names": {"0": "a", "1": "b"}})


def test_of_a_volume_the_middle_or_the_slice_asked_for_is_read(tmp_path):
    volume = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 6, 8), np.float32)
    volume[:, 0] += 1
    write(tmp_path / "a.nii.gz", volume)
    found = normalised(tmp_path / "a.nii.gz")
    assert (found.name, found.aspect) == ("a.nii.gz, slice 3 of 5", 2.0)
    assert normalised(tmp_path / "a.nii.gz", at=5).name.endswith("slice 5 of 5")
    with pytest.raises(UserError, match="it has 1 to 5"):
        normalised(tmp_path / "a.nii.gz", at=6)
    with pytest.raises(UserError, match=r"images end in \.bmp"):
        normalised(tmp_path / "a.txt")
