"""Two thousand configs that nobody wrote: read exactly as they say, or refused in one line."""

import json
import math

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_vit_trainer.config import reading
from nnunet_vit_trainer.config.reading import ConfigError, load_config
from nnunet_vit_trainer.config.schema import ViTnnUNetConfig

# The same examples every time, however busy the machine is.
ALWAYS = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module", autouse=True)
def _head():
    def unetr(*, decoder_channels: list[int] = (1,), negative_slope: float = 0.01, plain=1): ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "find_head", lambda name: unetr)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("configs") / "mine.yaml"


def outcome(file):
    """Load a config; return it, or the one line that refuses it."""
    try:
        return load_config(file), ""
    except ConfigError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) <= 500
        assert said.startswith(f"{file}: ")
        return None, said


# What each key may be, said a second time and in other words than in the schema.
def whole(low, high, none=False):
    return lambda v: (none and v is None) or (type(v) is int and low <= v <= high)


def number(low, high, none=False, above=False, below=False):
    def allowed(v):
        if type(v) not in (int, float) or math.isnan(v):
            return none and v is None
        return low <= v <= high and not (above and v == low) and not (below and v == high)

    return allowed


def several(of, count=None, least=0):
    return lambda v: (
        isinstance(v, list) and all(map(of, v)) and len(v) >= least and count in (None, len(v))
    )


def one_of(*names, none=False):
    return lambda v: (none and v is None) or (isinstance(v, str) and v in names)


def is_text(v):
    return isinstance(v, str)


def is_truth(v):
    return isinstance(v, bool)


def is_tune(v):
    return v in (None, "lora", "frozen", "full") or v in ("last_3", "last_999")


def are_statistics(v):
    if not isinstance(v, dict):
        return one_of("auto", "none", "imagenet", "meddinov3_ct")(v)
    lists = several(number(-1e9, 1e9), least=1)
    return set(v) == {"mean", "std"} and all(map(lists, v.values())) and min(v["std"]) >= 1e-8


FAMILIES = {"dinov3": ("small", "large"), "dinov2": ("small", "large"), "visionfm": ()}
EPOCHS = whole(1, 10**6)
SHARE = number(0, 1, below=True)
ALLOWED = {
    "model.backbone": is_text,
    "model.backbone_size": lambda v: v is None or is_text(v),
    "model.checkpoint_path": is_text,
    "model.pretrained": lambda v: v is None or is_truth(v),
    "model.patch_size": whole(1, 256, none=True),
    "model.layer_indices": lambda v: (
        v in (None, "dinov3") or several(whole(-1000, 1000), count=4)(v)
    ),
    "model.input_norm": are_statistics,
    "model.tune": is_tune,
    "model.decoder.decoder_channels": several(whole(-math.inf, math.inf)),
    "model.decoder.negative_slope": number(-math.inf, math.inf),
    "model.decoder.plain": lambda v: True,
    "lora.enabled": is_truth,
    "lora.r": whole(1, 4096),
    "lora.lora_alpha": number(0, 1e6, above=True),
    "lora.target_modules": several(is_text, least=1),
    "lora.lora_dropout": SHARE,
    "lora.dora": is_truth,
    "train.optimizer": one_of("adamw", "sgd"),
    "train.initial_lr": number(0, 1000, above=True),
    "train.backbone_lr": number(0, 1000, none=True, above=True),
    "train.backbone_lr_scale": number(0, 1000, none=True, above=True),
    "train.layer_decay": number(0, 1, above=True),
    "train.betas": several(SHARE, count=2),
    "train.weight_decay": number(0, 1000),
    "train.gradient_clip": number(0, 1e12, above=True),
    "train.warmup_epochs": whole(0, 10**6, none=True),
    "train.head_first_epochs": whole(0, 10**6),
    "train.ema": SHARE,
    "train.amp_dtype": one_of("auto", "bfloat16", "float16", "float32"),
    "train.grad_checkpointing": is_truth,
    "train.num_epochs": EPOCHS,
    "train.checkpoint": one_of("full", "adapter"),
    "train.seed": whole(0, 2**32 - 1, none=True),
    "train.batch_size": whole(1, 65536, none=True),
    "train.patch_size": several(whole(1, 8192), count=2),
}
ALLOWED["train.patch_size"] = lambda v, sides=ALLOWED["train.patch_size"]: v is None or sides(v)
UNKNOWN = ("modle", "lora.rnak", "train.lr", "model.decoder.widht", "train.'r'", "lora.on")

# YAML as people write it, and what it says.
WRITTEN = {
    "yes": True, "No": False, "off": False, "ON": True, "true": True, "y": "y",
    "'no'": "no", '"off"': "off", "~": None, "null": None, "": None, "Null": None,
    "0": 0, "-1": -1, "1": 1, "8": 8, "+8": 8, "1_000": 1000, "010": "010", "0x1F": "0x1F",
    "1:30": "1:30", "2024-01-31": "2024-01-31", "2024-13-45": "2024-13-45", "0o17": "0o17",
    "1e-3": 1e-3, "1E3": 1e3, ".5": 0.5, "5.": 5.0, "1e": "1e", "0.98": 0.98, "-0.0": -0.0,
    ".inf": math.inf, "-.INF": -math.inf, ".NaN": math.nan, "1e999": math.inf, "nan": "nan",
    "inf": "inf", "9" * 30: int("9" * 30), "1e30": 1e30, "65536": 65536, "70000": 70000,
    "[]": [], "{}": {}, "[1]": [1], "[[1]]": [[1]], "[0.9, 0.98]": [0.9, 0.98],
    "[224, 192]": [224, 192], "[2, 5, 8, 11]": [2, 5, 8, 11], "[-1, 0, 1, 2]": [-1, 0, 1, 2],
    "[512, 256, 128, 64, 32]": [512, 256, 128, 64, 32], "[qkv, proj]": ["qkv", "proj"],
    "[no]": [False], "[.nan, .nan]": [math.nan] * 2, "[1, 'x']": [1, "x"], "{a: 1}": {"a": 1},
    "{mean: [0.5], std: [0.1]}": {"mean": [0.5], "std": [0.1]},
    "{mean: [0.5], std: [0]}": {"mean": [0.5], "std": [0]},
    "{mean: [0.5]}": {"mean": [0.5]}, "{men: [1], std: [1]}": {"men": [1], "std": [1]},
    "qkv": "qkv", "adamw": "adamw", "sgd": "sgd", "AdamW": "AdamW", "cosine": "cosine",
    "full": "full", "adapter": "adapter", "float16": "float16", "fp16": "fp16",
    "last_3": "last_3", "last_0": "last_0", "frozen": "frozen", "imagenet": "imagenet",
    "dinov2": "dinov2", "dinov3": "dinov3", "small": "small", "tiny": "tiny", "a b": "a b",
    "!!str 5": "5", "!!float 8": 8.0, "!!int '8'": 8, "# nothing": None, "'\t'": "\t",
}  # fmt: skip
values = st.one_of(
    st.sampled_from([*WRITTEN.items()]),
    st.integers(-(10**19), 10**19).map(lambda v: (str(v), v)),
    st.floats().map(lambda v: (repr(v).replace("inf", ".inf").replace("nan", ".nan"), v)),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["C"])).map(
        lambda v: (json.dumps(v, ensure_ascii=False), v)
    ),
)
right = {
    key: [pair for pair in WRITTEN.items() if allowed(pair[1])] for key, allowed in ALLOWED.items()
}


def some(keys, least, most):
    return st.lists(st.sampled_from(keys), min_size=least, max_size=most, unique=True)


def drawn_from(value_of, unknown, twice):
    """Draw pairs of text and value by key, keys that are unknown and given twice, and an anchor."""
    return some([*ALLOWED], 0, 6).flatmap(
        lambda keys: st.tuples(
            st.fixed_dictionaries({key: value_of(key) for key in keys}),
            some(UNKNOWN, 0, unknown),
            some(keys, 0, twice) if keys else st.just([]),
            st.booleans(),
        )
    )


def right_value(key):
    return st.sampled_from(right[key])


# Half of them as a person may mean them, half with anything anywhere.
configs = st.one_of(
    drawn_from(right_value, 0, 0),
    drawn_from(lambda key: st.one_of(right_value(key), values), 2, 1),
)


def written(pairs, unknown, twice):
    """Write a config in blocks; a key that is given twice has the same value both times."""
    lines = {"": [], "model": [], "model.decoder": [], "lora": [], "train": []}
    for key, text in [*pairs, *((key, "1") for key in unknown)]:
        section, _, name = key.rpartition(".")
        lines[section] += [f"{name}: {text}"] * (2 if key in twice else 1)
    if inner := lines.pop("model.decoder"):
        lines["model"] += ["decoder:", *(f"  {line}" for line in inner)]
    sections = [name for name in ("model", "lora", "train") if lines[name]]
    blocks = [f"{name}:\n  " + "\n  ".join(lines[name]) for name in sections]
    return "\n".join([*lines[""], *blocks])


def mistakes(said):
    """List the keys of what must be refused."""
    wrong = {key for key, value in said.items() if not is_finite(value) or not ALLOWED[key](value)}
    backbone, size = "model.backbone", "model.backbone_size"
    if not {backbone, size} & wrong and said.get(size) is not None:
        wrong |= (
            {size} if said[size] not in FAMILIES.get(said.get(backbone, "dinov3"), ()) else set()
        )
    train = {"train.num_epochs": 1000, "train.head_first_epochs": 0, "train.warmup_epochs": 0}
    if not train.keys() & wrong:
        last, *begin = (said.get(key, default) or 0 for key, default in train.items())
        wrong |= {"train.num_epochs"} if sum(begin) >= last else set()
    rates = ("train.backbone_lr", "train.backbone_lr_scale")
    if not wrong & {*rates} and all(said.get(key) is not None for key in rates):
        wrong.add(rates[0])
    return wrong


def is_finite(value):
    inner = value if isinstance(value, list) else [value]
    numbers = [v for v in inner if type(v) in (int, float)]
    return all(abs(v) <= 10**18 for v in numbers)  # NaN is not


def read_back(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def same(value, given):
    if isinstance(given, list):
        return isinstance(value, list) and all(map(same, value, given)) and len(value) == len(given)
    if isinstance(given, dict):
        return value == given
    kinds = (float, int) if type(given) is int else (type(given),)
    return type(value) in kinds and value == given


@settings(max_examples=1400, **ALWAYS)
@given(drawn=configs)
def test_a_config_is_read_as_it_says_or_each_mistake_is_named(drawn, file):
    pairs, unknown, twice, tagged = drawn
    texts = [(key, text) for key, (text, _) in pairs.items()]
    if tagged and "train.seed" not in pairs:
        texts.append(("train.seed", "&seed 7"))
    file.write_text(written(texts, unknown, twice), encoding="utf-8")
    said = {key: value for key, (_, value) in pairs.items()}
    wrong = mistakes(said)
    config, refused = outcome(file)
    names = [*wrong, *(key.replace("'", "") for key in unknown)]
    assert (config is None) == bool(names or twice), refused
    if config is None:
        count = len(names) + len(twice)
        assert count == 1 or f": {count} mistakes: (1) " in refused
        shown = sum(name in refused for name in names) + ("is given twice" in refused)
        assert shown >= min(count, 4)
        return
    defaults = ViTnnUNetConfig()
    for key in ALLOWED:
        if key in said:
            assert same(read_back(config, key), said[key]), key
        elif not key.startswith("model.decoder.") and (key, tagged) != ("train.seed", True):
            assert read_back(config, key) == read_back(defaults, key)
    assert not tagged or "train.seed" in said or config.train.seed == 7


PAGE = """
model: &model
  model_path: unetr
  backbone: dinov3   # a comment
  decoder: {decoder_channels: [512, 256], negative_slope: 0.01}
lora: {enabled: true, r: 8, target_modules: ["qkv"]}
train:
  initial_lr: 0.001
  num_epochs: 1_000
  batch_size: null
  patch_size:
    - 224
    - 192
"""
SCRAPS = [
    "\t", "\n", "\n\n  ", ":", ": ", "- ", "? ", "#", "&a ", "*a", "*model", "<<: *model",
    "<<: {r: 1}", "!!int ", "!!binary ", "!!set ", "!!python/name:os.system ", "!x ", "{", "}", "[",
    "]", ",", "'", '"', "|\n", ">-\n", "%YAML 1.1\n", "---\n", "...\n", "@", "`", "\0", "\x85",
    "\ufeff", "\u2028", "0", "9" * 40, "1e", ".inf", "~", "no", "on:", "lora:", "train: {}",
    "\\ud800", "\U0001f600", "=",
]  # fmt: skip
HARMLESS = ["", " ", "1", "x", "\n", "# x\n", "_"]
edits = st.lists(
    st.tuples(st.integers(0, len(PAGE)), st.integers(0, 12), st.sampled_from(SCRAPS)), max_size=4
)
slips = st.lists(
    st.tuples(st.integers(0, len(PAGE)), st.integers(0, 2), st.sampled_from(HARMLESS)), max_size=2
)


def edited(changes):
    text = PAGE
    for start, length, scrap in changes:
        text = text[:start] + scrap + text[start + length :]
    return text.encode("utf-8", "surrogatepass")


def says(text, value):
    """Compare a value with its text as a loader gives it that knows no types."""
    if isinstance(text, list):
        return len(text) == len(value) and all(map(says, text, value))
    if isinstance(text, dict):
        return text.keys() == value.keys() and all(says(text[key], value[key]) for key in text)
    if isinstance(value, bool):
        return (text.lower() in ("true", "yes", "on")) == value
    if isinstance(value, int | float):
        return float(text.replace("_", "")) == value
    return text.lower() in ("", "~", "null") if value is None else text == value


@settings(max_examples=700, **ALWAYS)
@given(content=st.one_of(slips.map(edited), edits.map(edited), st.binary(max_size=200)))
def test_text_that_was_cut_and_pasted_is_read_or_refused(content, file):
    file.write_bytes(content)
    config, _ = outcome(file)
    if config is None or b"<<" in content:
        return
    tree = yaml.load(content, Loader=yaml.BaseLoader) or {}
    for section, keys in tree.items():
        for key, text in keys.items():
            value = getattr(getattr(config, section), key)
            given = value.options() if key == "decoder" else value
            assert says(text, given), (section, key, text)
