"""The config file: what parses, and the one line for what does not."""

import subprocess
import sys
from types import ModuleType

import pytest

from nnunet_vit_trainer.config.reading import ConfigError, find_config, load_config, shipped_configs

USERS_UNETR = """
model:
  model_path: "nnunetv2.model.model_unetr"
  backbone: "dinov3"
  backbone_size: "large"
  checkpoint_path: ""
  pretrained: null
  decoder: {decoder_channels: [512, 256, 128, 64, 32], negative_slope: 0.01}
lora: {enabled: true, r: 8, lora_alpha: 16, target_modules: ["qkv"], lora_dropout: 0.05}
train:
  initial_lr: 0.001
  weight_decay: 0.0001
  gradient_clip: 12.0
  num_epochs: 1000
  num_iterations_per_epoch: 250
  num_val_iterations_per_epoch: 50
  batch_size: null
  patch_size: null
"""
USERS_SEGFORMER = """
model: {model_path: "nnunetv2.model.model_segformer_1", backbone: dinov3,
        backbone_size: large, checkpoint_path: "", decoder: {hidden_size: 256}}
"""


@pytest.fixture(autouse=True)
def heads(monkeypatch):
    """Two heads' factories, so that this file runs where no head is installed."""
    from vit_backbone.heads import finding

    def unetr(*, decoder_channels: list[int] = (1,), negative_slope: float = 0.01, **unknown): ...

    def segformer(
        *,
        hidden_size: int = 256,
        dropout: float = 0.1,
        norm: str = "group",
        neck: str = "none",
        upsample: str = "bilinear",
        shortcut: bool = False,
        image_stem: bool = False,
        **unknown,
    ): ...

    module = ModuleType("stand_in")
    module.create_segmentation_model = unetr
    table = {
        "unetr": unetr,
        "segformer": segformer,
        "nnunetv2.model.model_unetr": unetr,
        "nnunetv2.model.model_segformer_1": segformer,
    }

    def find_head(name):
        return table[name] if name in table else finding.find_head(name)

    monkeypatch.setattr("nnunet_vit_trainer.config.reading.find_head", find_head)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_the_config_of_the_design_parses_and_every_key_is_read(write):
    config = load_config(write(USERS_UNETR))
    assert config.model.backbone_size == "large"
    assert config.model.decoder.options() == {
        "decoder_channels": [512, 256, 128, 64, 32],
        "negative_slope": 0.01,
    }
    assert (config.lora.r, config.lora.lora_alpha) == (8, 16.0)
    assert config.train.num_epochs == 1000


def test_the_older_segformer_config_parses_with_the_same_defaults(write):
    config = load_config(write(USERS_SEGFORMER))
    assert config.model.decoder.hidden_size == 256
    assert config.lora == load_config(write(USERS_UNETR)).lora
    assert config.train == load_config(write(USERS_UNETR)).train


@pytest.mark.parametrize(
    "name", ["unetr", "unetr_light", "segformer", "linear", "unetr_tiny", "segformer_tiny"]
)
def test_shipped_configs_are_found_by_name(name):
    assert name in shipped_configs()
    assert load_config(name).model.model_path == name.split("_")[0]


@pytest.mark.parametrize("name", ["recommended", "recommended_tiny"])
def test_the_recommended_head_begins_as_a_linear_probe_and_sees_the_pixels(name):
    model = load_config(name).model
    options = model.decoder.options()
    assert (model.model_path, options["neck"]) == ("segformer", "pyramid")
    assert options["shortcut"]
    assert options["image_stem"]


def test_unetr_stays_the_specifications_network():
    options = load_config("unetr").model.decoder.options()
    assert options == {"decoder_channels": [512, 256, 128, 64, 32], "negative_slope": 0.01}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora: {rnak: 8}", "lora.rnak: unknown key; did you mean 'r'?"),
        ("lora: {rank: 8}", "did you mean 'r'?"),
        ("lora: {alpha: 8}", "did you mean 'lora_alpha'?"),
        ("train: {lr: 1}", "did you mean 'initial_lr'?"),
        ("lr: 1", "lr: unknown key; 'initial_lr' belongs under train"),  # lora is as near
        ("train: {r: 8}", "train.r: unknown key; 'r' belongs under lora"),
        ("model: {lora: {r: 8}}", "model.lora: unknown key; 'lora' belongs at the top"),
        ("train: {epochs: 1}", "did you mean 'num_epochs'?"),
        ("train: {zzz: 1}", "valid keys: optimizer, initial_lr, backbone_lr"),
        ("epochs: 1", "'num_epochs' belongs under train"),
        ("train: {drop_path: 0.1}", "did you mean 'drop_path_rate'?"),
        ("train: {amp_dtype: fp16}", "train.amp_dtype: "),
        ("train: {betas: [0.9]}", "train.betas: "),
        ("train: {layer_decay: 1.1}", "train.layer_decay: "),
        ("train: {backbone_lr: 1e-4, backbone_lr_scale: 0.1}", "excludes train.backbone_lr_scale"),
        ("train: {num_epochs: 5, head_first_epochs: 3, warmup_epochs: 2}", "5 epochs end before"),
        ("modle: {}", "did you mean 'model'?"),
        ("model: {decoder: {hiden_size: 1}, model_path: segformer}", "'hidden_size'"),
        ("model: {decoder: {hidden_size: 1}}", "valid keys: decoder_channels, negative_slope"),
        ("model: {decoder: {negative_slope: steep}}", "model.decoder.negative_slope"),
        ("model: {backbone_size: tiny}", "has no size 'tiny'; it has small"),
        ("model: {model_path: unet}", "model.model_path: no head 'unet'"),
        ("model: {backbone: test_vit, backbone_size: large}", "is no family"),
        ("model: 3", "model: "),
        ("lora: {r: 0}", "lora.r: "),
        ("lora: {r: true}", "lora.r: "),
        ("lora: {r: 8.5}", "lora.r: "),
        ("lora: {enabled: 'no'}", "lora.enabled: "),
        ("lora: {lora_dropout: 1}", "lora.lora_dropout: "),
        ("train: {initial_lr: 0}", "train.initial_lr: "),
        ("train: {patch_size: [32]}", "train.patch_size: "),
        ("train: {batch_size: 0}", "train.batch_size: "),
        ("lora: {r: 8, r: 4}", "key 'r' is given twice"),
        ("lora: [", "not readable as YAML"),
        ("- lora", "a mapping with model, lora and train"),
    ],
)
def test_what_is_wrong_gets_one_line(text, message, write):
    file = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_as_people_write_them(write):
    train = load_config(write("train: {initial_lr: 1e-3, weight_decay: 0, gradient_clip: 1}")).train
    assert (train.initial_lr, train.weight_decay, train.gradient_clip) == (1e-3, 0.0, 1.0)


@pytest.mark.parametrize("name", ["a__b.yaml", "_a.yaml", "a_.yaml", "a b.yaml", "a_ds.yaml"])
def test_a_name_that_nnunet_would_misparse_is_refused(name, write):
    with pytest.raises(ConfigError, match=r"part of the plans'|deep supervision"):
        find_config(write("", name))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.yaml", "see nnUNetv2_configs_vit --list"),
        ("recomended_tiny", "did you mean 'recommended_tiny'?"),
        ("not/written/yet/unetr_light.yaml", "did you mean 'unetr_light'?"),
        ("x" * 5000, "see nnUNetv2_configs_vit --list"),
    ],
)
def test_a_missing_file_is_told_the_nearest_shipped_config(given, said):
    with pytest.raises(ConfigError, match="no such file, and no shipped config") as caught:
        load_config(given)
    assert said in str(caught.value)


def test_a_typo_is_answered_by_the_command_before_torch_is_imported(write):
    file = write("lora: {rnak: 8}")
    code = (
        "import sys; from nnunet_vit_trainer.commands.train import train\n"
        f"sys.argv = ['nnUNetv2_train_vit', '1', '2d', '0', '--config', {str(file)!r}]\n"
        "try: train()\n"
        "finally: assert not {'torch', 'timm', 'nnunetv2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "did you mean 'r'?" in done.stderr


THEIRS = """
from vit_backbone import UserError, head_factory

class Shape: ...

def check_options(width, shape):
    if width < 1:
        raise UserError(f"width {width}: at least 1")

@head_factory
def create_segmentation_model(
    backbone, num_classes, *, width: int = 64, shape: int | Shape = 3
): ...
"""


def test_a_strangers_options_are_checked_with_their_defaults(tmp_path, monkeypatch):
    """As its factory does; and a class of its own is no type that can be checked here."""
    (tmp_path / "their_checked_head.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    model = "model: {model_path: their_checked_head, backbone: test_vit, decoder: {%s}}"
    file = tmp_path / "theirs.yaml"
    for options in ("", "shape: 4", "width: 2, shape: 4"):
        file.write_text(model % options)
        load_config(file)
    file.write_text(model % "width: 0, shape: 4")
    with pytest.raises(ConfigError, match=r"model\.decoder\.width 0: at least 1"):
        load_config(file)
