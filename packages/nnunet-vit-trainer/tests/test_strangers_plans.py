"""A stranger's plans and dataset.json run nothing but nnU-Net's own and installed heads."""

import copy
import json
import sys
import zipfile

import pytest
from trained_results import DATASET, DATASET_JSON

from nnunet_vit_trainer.sharing.export import export_vit
from nnunet_vit_trainer.sharing.install import import_vit
from vit_backbone import UserError


@pytest.fixture(scope="module")
def shared(trained_folder, tmp_path_factory):
    """An export: its files by name, and its plans."""
    file = export_vit(trained_folder, tmp_path_factory.mktemp("whole") / "whole.zip")
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    return contents, json.loads(contents[f"{DATASET}/{trained_folder.name}/plans.json"])


@pytest.fixture
def install(shared, tmp_path):
    """Import the export with other plans or another dataset.json."""

    def install(plans=None, dataset=None, **options):
        contents, own = shared
        replaced = {"plans.json": plans or own, "dataset.json": dataset or DATASET_JSON}
        file = tmp_path / "shared.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in contents.items():
                new = replaced.get(name.rsplit("/", 1)[1])
                text = new if isinstance(new, str) else json.dumps(new)
                archive.writestr(name, content if new is None else text)
        return import_vit(file, tmp_path / "results", **options)[0]

    return install


@pytest.fixture
def plans(shared):
    return copy.deepcopy(shared[1])


def settings_of(plans):
    return plans["configurations"]["2d"]


def arguments_of(plans):
    return settings_of(plans)["architecture"]["arch_kwargs"]


def test_what_nobody_changed_is_installed(install, plans):
    folder = install()
    assert json.loads((folder / "plans.json").read_text()) == plans
    assert json.loads((folder / "dataset.json").read_text()) == DATASET_JSON


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null", "", "{", "[" * 100_000, "1" * 9999])
@pytest.mark.parametrize("file", ["plans", "dataset"])
def test_what_is_no_mapping_in_json_is_one_line(file, text, install):
    with pytest.raises(UserError, match=f"{file}.json .*(JSON|where a mapping is expected)"):
        install(**{file: text or " "})


@pytest.mark.parametrize("file", ["plans", "dataset"])
def test_what_is_nested_deeper_than_json_is_read_is_one_line(file, install, plans):
    deep = []
    for _ in range(90):
        deep = [deep]
    content = {"plans": plans, "dataset": dict(DATASET_JSON)}[file] | {"more": deep}
    with pytest.raises(UserError, match="nested deeper"):
        install(**{file: content})


@pytest.fixture
def head_module(tmp_path, monkeypatch):
    """A module that can be imported here, and is no installed head; it says when it is run."""
    (tmp_path / "my_tools").mkdir()
    (tmp_path / "my_tools" / "__init__.py").write_text("")
    source = "from vit_backbone.heads.linear import create_segmentation_model\n"
    (tmp_path / "my_tools" / "my_head.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_tools.my_head"
    for name in ("my_tools", "my_tools.my_head"):
        sys.modules.pop(name, None)


def test_a_head_that_is_no_installed_one_is_not_even_imported(install, plans, head_module):
    arguments_of(plans)["head"] = head_module
    with pytest.raises(UserError, match=r"'my_tools\.my_head' is not installed.*--head"):
        install(plans)
    with pytest.raises(UserError, match=r"'my_tools\.my_head' is not installed.*--head"):
        install(plans, head="my_tools.other")
    assert head_module not in sys.modules
    assert install(plans, head=head_module).is_dir()


@pytest.mark.parametrize("head", ["this", "antigravity", "os", "linear.py", "../linear", ""])
def test_no_module_is_run_because_plans_name_it(head, install, plans):
    arguments_of(plans)["head"] = head
    sys.modules.pop(head, None) if head in ("this", "antigravity") else None
    with pytest.raises(UserError, match="is not installed here"):
        install(plans)
    assert head not in ("this", "antigravity") or head not in sys.modules


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("widht", 3, r"model\.decoder\.widht: unknown key"),
        ("checkpoint_path", "/etc/passwd", "may not hold checkpoint_path"),
        ("pretrained", True, "may not hold pretrained"),
        ("num_classes", 3, "may not hold num_classes"),
        ("options", 3, r"model\.decoder\.options: unknown key"),
        ("\ud800", 3, "cannot be read as JSON"),
        ("self", 3, r"model\.decoder\.self: unknown key"),
        ("auxiliary_outputs", True, "does not take auxiliary_outputs"),
        ("backbone_options", {"widht": 3}, "unknown backbone_options"),
        ("backbone_options", {"checkpoint_path": "/etc/passwd"}, "unknown backbone_options"),
        ("backbone_options", {"img_size": 10**9}, "does not fit|no network"),
        ("backbone_options", {"input_norm": {"mean": 3, "std": [1.0]}}, r"input_norm\.mean"),
        ("backbone_options", {"input_norm": {"mean": [0.0], "std": [0.0]}}, r"input_norm\.std"),
        ("backbone_options", {"input_norm": {"mean": [0.0] * 2, "std": [1.0]}}, "channels"),
        ("backbone_name", "hf-hub:a/b", "neither a family nor a timm model"),
        ("backbone_name", "local-dir:/etc", "neither a family nor a timm model"),
        ("backbone_name", "vit_small_patch16_224", "does not fit its plans"),
        ("lora_rank", 10**8, "does not fit|no network"),
        ("lora_target_modules", "qkv", "no network|match no linear layer|is one string"),
        ("lora_target_modules", [["qkv"]], "a list of names is expected"),
        ("use_lora", False, "does not fit its plans: it (lacks|has besides)"),
    ],
)
def test_an_argument_of_the_network_that_is_not_ours_is_refused(
    name, value, message, install, plans
):
    arguments_of(plans)[name] = value
    with pytest.raises(UserError, match=message):
        install(plans)


@pytest.mark.parametrize(
    ("head", "option", "value"),
    [
        ("unetr", "decoder_channels", [10**9] * 5),
        ("unetr", "decoder_channels", "abcde"),
        ("unetr", "widht", 1),
        ("segformer", "hidden_size", 0),
        ("segformer", "norm", ["group"]),
        ("nnunetv2.model.model_unetr", "upsample", "nearest"),
    ],
)
def test_an_option_of_a_head_is_checked_before_memory_is_taken(head, option, value, install, plans):
    pytest.importorskip(f"vit_heads_{head.removeprefix('nnunetv2.model.model_')}")
    arguments_of(plans).update({"head": head, option: value})
    with pytest.raises(UserError, match=f"model.decoder.*{option}|does not fit|no network"):
        install(plans)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessor_name", "subprocess"),
        ("preprocessor_name", "maybe_mkdir_p"),
        ("preprocessor_name", "os.system"),
        ("resampling_fn_data", "recursive_find_python_class"),
        ("resampling_fn_seg", "join"),
        ("resampling_fn_probabilities", "os"),
        ("normalization_schemes", ["Type"]),
        ("normalization_schemes", ["ImageNormalization"]),
        ("image_reader_writer", "traceback"),
        ("image_reader_writer", "BaseReaderWriter"),
        ("image_reader_writer", "recursive_find_python_class"),
        ("label_manager", "torch"),
        ("overwrite_image_reader_writer", "np"),
    ],
)
def test_names_that_nnunet_looks_up_lead_to_what_they_are_for(key, value, install, plans):
    dataset = dict(DATASET_JSON)
    where = settings_of(plans) if key in settings_of(plans) else plans
    (dataset if key.startswith("overwrite") else where)[key] = value
    with pytest.raises(UserError, match="of this nnU-Net"):
        install(plans, dataset)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("architecture", "_kw_requires_import"), ["head"]),
        (("architecture", "_kw_requires_import"), ["lora_rank"]),
        (("architecture", "network_class_name"), "pydoc.locate"),
        (("resampling_fn_data_kwargs",), {"data": "x"}),
        (("resampling_fn_seg_kwargs",), {"order": {"a": 1}}),
        (("data_identifier",), "../../elsewhere"),
        (("inherits_from",), "2d"),
        (("previous_stage",), "3d_lowres"),
        (("patch_size",), [32, 32, 32]),
        (("patch_size",), [10**9, 10**9]),
        (("patch_size",), [32, -32]),
        (("spacing",), [1.0, 0.0]),
        (("use_mask_for_norm",), []),
        (("normalization_schemes",), ["ZScoreNormalization"] * 2),
    ],
)
def test_a_setting_that_leads_elsewhere_or_to_nothing_is_refused(keys, value, install, plans):
    inner = settings_of(plans)
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    with pytest.raises(UserError, match=rf"{keys[-1]}|network|resample_data_or_seg_to_shape"):
        install(plans)


def test_a_dataset_json_that_is_written_much_larger_is_refused(install):
    """Ones in fifty lists: two bytes come for each, and two hundred blanks are written."""
    deep = [1] * 400_000
    for _ in range(50):
        deep = [deep]
    with pytest.raises(UserError, match="unpacks to more than"):
        install(dataset=DATASET_JSON | {"more": deep})


@pytest.mark.parametrize(
    "file", ["/dev/zero", "../a/zero", "\\\\server\\share\\zero", "C:\\zero", "C:zero"]
)
def test_no_path_of_a_stranger_stays_in_plans(file, install, plans):
    """It would be opened when the model is continued, or exported again."""
    plans["vit"]["weights"]["file"] = file
    installed = json.loads((install(plans) / "plans.json").read_text())
    assert installed["vit"]["weights"]["file"] == "zero"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file_ending", "/../../evil.png"),
        ("file_ending", ".png\n"),
        ("file_ending", ""),
        ("channel_names", {}),
        ("channel_names", {"0": "a", "1": "b"}),
        ("labels", {"a": 1}),
        ("labels", {"background": 0, "a": [1, 2]}),
        ("labels", {"background": 0, "a": "x"}),
    ],
)
def test_a_dataset_json_that_prediction_could_not_use_is_refused(key, value, install):
    with pytest.raises(UserError, match=rf"{key}|channels|network"):
        install(dataset=DATASET_JSON | {key: value})
