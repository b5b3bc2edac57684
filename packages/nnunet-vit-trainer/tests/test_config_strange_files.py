"""Config files that nobody means, or that somebody means ill: one short line each, at once."""

import os

import pytest

from nnunet_vit_trainer.config import reading
from nnunet_vit_trainer.config.reading import ConfigError, find_config, load_config

LONG = "x" * 5000
LAUGHS = "\n".join(
    f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else 'ha'] * 9)}]" for i in range(12)
)
MERGES = "\n".join(
    f"k{i}: &k{i} "
    + (f"{{<<: [{', '.join([f'*k{i - 1}'] * 9)}], a{i}: 1}}" if i else "{a: 1, b: 2}")
    for i in range(12)
)


@pytest.fixture(autouse=True)
def heads(monkeypatch):
    """A head's factory, so that this file runs where no head is installed."""

    def unetr(*, decoder_channels: list[int] = (1,), negative_slope: float = 0.01, plain=1): ...

    monkeypatch.setattr(reading, "find_head", lambda name: unetr)


def refusal(file):
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 500
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [a]\n: 1", "a key is a word, not a list or a mapping (line 1, column 3)"),
        ("train: {? {a: 1} : 1}", "a key is a word"),
        ("model: " + "[" * 3000, "nested too deeply"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("model: {decoder: {plain: " + "[" * 99 + "]" * 99 + "}}", "plain: nested deeper than 32"),
        ("train: {lr: " + "{a: " * 99 + "}" * 99 + "}", ".a: nested deeper than 32"),
        ('model: {model_path: "\\uD800"}', "model.model_path: half a character"),
        ("train: {weight_decay: .inf}", "train.weight_decay: a finite number is expected, got inf"),
        ("train: {betas: [0.9, .nan]}", "train.betas: a finite number is expected"),
        ("model: {decoder: {negative_slope: .nan}}", "model.decoder.negative_slope: a finite"),
        ("model: {decoder: {plain: [-.inf]}}", "model.decoder.plain: a finite"),
        ("model: {input_norm: {mean: [.inf], std: [1]}}", "model.input_norm.mean: a finite"),
        ("model: {input_norm: {mean: [1e12], std: [1]}}", "model.input_norm.mean.0: Input should"),
        ("model: {layer_indices: [1, 2, 3, 9999]}", "model.layer_indices.3: Input should be less"),
        ("train: {weight_decay: 1e999}", "train.weight_decay: a finite"),
        ("lora: {r: 1000000000}", "lora.r: Input should be less than or equal to 4096"),
        ("train: {patch_size: [31623, 31623]}", "train.patch_size.0: Input should be less"),
        ("train: {batch_size: 1000000000000}", "train.batch_size: Input should be less"),
        ("train: {num_epochs: 1000000000}", "train.num_epochs: Input should be less"),
        ("train: {initial_lr: 1e10}", "train.initial_lr: Input should be less"),
        ("model: {patch_size: 100000}", "model.patch_size: Input should be less"),
        ("model: {tune: last_99999999999999}", "model.tune: "),
        (f"train: {{batch_size: {'9' * 30}}}", "train.batch_size: a number from -1e18 to 1e18"),
        (f"train: {{batch_size: {'9' * 5000}}}", "not readable as YAML"),
        (f"train: {{batch_size: {LONG}}}", "train.batch_size: Input should be a valid integer"),
        (f"train: {{{LONG[:900]}: 1}}", "unknown key; valid keys"),
        (f"model: {{decoder: {{{LONG[:900]}: 1}}}}", "unknown key; valid keys"),
        (f"model: {{backbone: dinov3, backbone_size: {LONG}}}", "model.backbone_size: "),
        (f"model: {{input_norm: {LONG}}}", "model.input_norm: unknown"),
        (f"model: {{tune: [{LONG}]}}", "model.tune: "),
        (f"? {LONG}\n: 1\n? {LONG}\n: 1", "is given twice"),
        ("lora: {r: 8}\nlora: {r: 8}", "key 'lora' is given twice (line 2, column 1)"),
        ("lora: {r: 8, 'r': 4}", "key 'r' is given twice"),
        ("1: 2", "1: unknown key"),
        ("on: 2", "on: unknown key"),
        ("~: 2", "~: unknown key"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("\tlora: {r: 1}", "not readable as YAML"),
        ("lora:\n\tr: 1", "not readable as YAML"),
        ("lora: &a {r: *a}", "nested deeper than 32"),
        ("lora: {r: *b}", "undefined alias"),
        (LAUGHS, "over 10,000 values"),
        ("lora:\n  " + LAUGHS.replace("\n", "\n  ") + "\n  target_modules: *k11", "over 10,000"),
        ("lora:\n  " + MERGES.replace("\n", "\n  "), "over 200 keys"),
        ("lora: {r: !!python/object/apply:os.getpid []}", "could not determine a constructor"),
        ("lora: {target_modules: !!set {a, b}}", "lora.target_modules: text, a number, a list"),
        ("lora: {r: !!int ''}", "not readable as YAML"),
        ("lora: {enabled: !!bool maybe}", "not readable as YAML"),
        ("train: {num_epochs: 2024-13-45}", "train.num_epochs: Input should be a valid integer"),
        ("train: {batch_size: 010}", "train.batch_size: Input should be a valid integer"),
        ("train: {batch_size: 1:30}", "train.batch_size: Input should be a valid integer"),
        ("model: {backbone: no}", "model.backbone: Input should be a valid string, got False"),
        ("just words", "a mapping with model, lora and train is expected"),
        ("0", "a mapping with model, lora and train is expected"),
        ("[]", "a mapping with model, lora and train is expected"),
        ("# " + "x" * 10_000_000, "over 100 kB"),
        ("lora: {r: 8}\0", "not readable as YAML"),
    ],
    ids=range(57),
)
def test_one_line(text, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    said = refusal(file)
    assert message in said
    assert said.startswith(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {backbone_size: ''}", "model.backbone_size: backbone 'dinov3' has no size ''"),
        ("lora: {r: !!int 010}", "'010' is not what !!int says before it (line 1, column 11)"),
        ("train: {batch_size: !!null 8}", "'8' is not what !!null says"),
        ("model: {input_norm: {mean: [0.5]}}", "model.input_norm: mean and std, each with values"),
        ("model: {input_norm: {}}", "are expected, got none"),
        ("model: {input_norm: {mean: [0], std: [0]}}", "model.input_norm.std: at least 1e-08"),
        ("lora:", "lora: a mapping of keys and values is expected, got None"),
    ],
)
def test_what_was_a_default_once_without_a_word(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert message in refusal(tmp_path / "mine.yaml")


def test_mistakes_are_told_together(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "lora: {r: 0, r: -1}\ntrain: {lr: 1, betas: [.nan, .nan]}\nmodel: {tune: all, backbone: no}"
    )
    assert refusal(file).removeprefix(f"{file}: ") == (
        "6 mistakes: (1) key 'r' is given twice (line 1, column 14); keep one of them "
        "(2) train.betas: a finite number is expected, got nan "
        "(3) train.lr: unknown key; did you mean 'initial_lr'? "
        "(4) model.backbone: Input should be a valid string, got False and 2 more"
    )
    # What depends on a wrong key is not looked at: the size of no backbone, the options of no head.
    file.write_text(
        "model: {backbone: [], backbone_size: tiny, model_path: 3, decoder: {widht: 1}}"
    )
    said = refusal(file)
    assert "2 mistakes: (1) model.model_path: " in said
    assert "(2) model.backbone: " in said


@pytest.mark.parametrize("content", [b"\x80\x81\xff", b"\x89PNG\r\n\x1a\n\0\0", b"\xff\xfe\xd8"])
def test_bytes_that_are_no_text(content, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert "not readable as YAML" in refusal(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_as_windows_writes_it(encoding, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("lora: {r: 4}  # Größe\r\n", encoding=encoding)
    assert load_config(file).lora.r == 4


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_an_empty_file_is_every_default(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert load_config(tmp_path / "mine.yaml").lora.r == 8


def test_anchors_aliases_and_merges_are_yaml(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        """
lora: &tuned {r: 4, lora_alpha: &alpha 8}
train: {gradient_clip: *alpha, num_epochs: 1_000, initial_lr: 1e-3, weight_decay: .5}
"""
    )
    config = load_config(file)
    assert (config.train.gradient_clip, config.train.num_epochs) == (8.0, 1000)
    assert (config.train.initial_lr, config.train.weight_decay) == (1e-3, 0.5)
    file.write_text(
        """
model:
  decoder: &decoder
    <<: &base {negative_slope: 0.2, decoder_channels: [1, 2]}
    negative_slope: 0.1
  input_norm: {<<: [{mean: [0]}, {mean: [1], std: [1]}]}
lora: {<<: {r: 4, dora: true}, <<: {r: 3}, r: 2}
"""
    )
    config = load_config(file)
    assert config.model.decoder.options() == {"negative_slope": 0.1, "decoder_channels": [1, 2]}
    assert config.model.input_norm == {"mean": [0], "std": [1]}
    assert (config.lora.r, config.lora.dora) == (2, True)


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "folder.yaml", f"{LONG}.yaml", "a\0b.yaml"):
        with pytest.raises(ConfigError, match="no such file") as caught:
            find_config(tmp_path / name)
        assert len(str(caught.value)) <= 500


def test_a_name_too_long_for_a_results_folder_is_refused(tmp_path):
    file = tmp_path / f"{'a' * 150}.yaml"
    file.touch()
    with pytest.raises(ConfigError, match="up to 100 letters"):
        find_config(file)


def test_a_file_deep_down_still_names_its_key(tmp_path):
    folder = tmp_path
    for _ in range(8):
        folder = folder / ("d" * 100)
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"lora: {{rnak: {LONG}}}")
    assert "mine.yaml: lora.rnak: unknown key; did you mean 'r'?" in refusal(folder / "mine.yaml")


@pytest.mark.parametrize("name", ["options", "self", "__class__", "__dict__"])
def test_an_option_that_hides_what_the_config_has_is_an_unknown_key(name, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"model: {{model_path: linear, decoder: {{{name}: 3}}}}")
    assert f"model.decoder.{name}: unknown key" in refusal(tmp_path / "mine.yaml")
