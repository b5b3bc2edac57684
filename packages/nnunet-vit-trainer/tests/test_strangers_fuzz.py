"""Every key of a stranger's plans, dataset.json and checkpoint, spoilt in every way: one line."""

import copy
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from trained_results import DATASET_JSON

from nnunet_vit_trainer.checkpoints.content import read_safely, write_atomically
from nnunet_vit_trainer.checkpoints.model_folder import check_plans, network_of
from nnunet_vit_trainer.sharing.foreign.checkpoint import check_fits, read_foreign_checkpoint
from nnunet_vit_trainer.sharing.foreign.plans import check_foreign
from vit_backbone import UserError

GONE = object()
UNREAD = {("vit", key) for key in ("model", "lora", "train", "versions", "input_norm")}
EVERYTHING = "FUZZ_EVERYTHING" in os.environ  # minutes; otherwise two values for each place
SPOILT = [GONE, None, [], {}, "x", -1, 0.5, True, [[1]], {"a": {"b": 1}}, 10**12, float("nan")]


def places(tree, path=()):
    """Name every place in nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def spoilt(tree, path, value):
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def outcome(check, *arguments):
    """Say whether a check passed, or in which line it refused; let any other error through."""
    said = ""
    try:
        check(*arguments)
    except UserError as error:
        said = str(error)
    assert len(said) < 600
    assert said.isprintable()
    return "refused" if said else "passed"


def check(plans, dataset, folder_name):
    """What an import does with both files."""
    check_plans(plans, folder_name, "a.zip")
    check_foreign(plans, dataset, "a.zip")
    network_of(plans, dataset, in_memory=False)


@pytest.fixture(scope="module")
def plans(trained_folder):
    return json.loads((trained_folder / "plans.json").read_text())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("file", ["plans", "dataset"])
def test_plans_and_dataset_json_pass_or_are_refused(file, plans, trained_folder):
    contents = {"plans": plans, "dataset": DATASET_JSON}
    found = [path for path in places(contents[file]) if path[:2] not in UNREAD]
    counted = {"passed": 0, "refused": 0}
    for number, path in enumerate(found):
        for value in SPOILT if EVERYTHING else (GONE, SPOILT[1 + number % (len(SPOILT) - 1)]):
            changed = contents | {file: spoilt(contents[file], path, value)}
            counted[outcome(check, *changed.values(), trained_folder.name)] += 1
    assert counted["refused"] > len(found) / 2


@pytest.fixture(scope="module")
def checkpoint(trained_folder):
    return torch.load(trained_folder / "fold_0" / "checkpoint_final.pth", weights_only=False)


def test_checkpoints_pass_or_are_refused(checkpoint, plans, tmp_path):
    network = network_of(plans, DATASET_JSON, in_memory=False)
    first = next(iter(checkpoint["network_weights"]))
    tensor = checkpoint["network_weights"][first]
    file = tmp_path / "checkpoint_final.pth"

    def read():
        content = read_foreign_checkpoint(file, "2d", "a.zip: checkpoint_final.pth")
        check_fits(content["network_weights"], network, "a.zip")
        write_atomically(content, file)

    torch.save(checkpoint, file)
    assert outcome(read) == "passed"
    keys = [(key,) for key in checkpoint if key != "network_weights"]
    keys += [("init_args", key) for key in checkpoint["init_args"]]
    for path in [*keys, ("network_weights",), ("network_weights", first)]:
        # The weights themselves are large, and most of the time.
        for value in SPOILT if path[0] != "network_weights" else [GONE, None, [], "x", {}]:
            torch.save(spoilt(checkpoint, path, value), file)
            found = outcome(read)
            needed = path[0] in ("network_weights", "trainer_name") or path[-1] == "configuration"
            assert found == "refused" or not needed, (path, value)
    for value in (
        tensor.to_sparse(),
        torch.empty(tensor.shape, device="meta"),
        tensor.to(torch.complex64),
        tensor[..., :1],
        torch.zeros(1).expand(10**6, 10**6),
        np.zeros(3),
    ):
        torch.save(spoilt(checkpoint, ("network_weights", first), value), file)
        assert outcome(read) == "refused", value
    for content in ([], None, "x", 3, tensor, {"network_weights": [tensor]}):
        torch.save(content, file)
        assert outcome(read) == "refused"


def rewritten(source, target, change, compression=zipfile.ZIP_STORED):
    """Copy a checkpoint's records, which are a zip, with another pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            content = old.read(record)
            is_pickle = record.filename.endswith("data.pkl")
            new.writestr(record.filename, change(content) if is_pickle else content)
    return target


def test_a_junk_pickle_is_one_line(trained_folder, tmp_path):
    source = trained_folder / "fold_0" / "checkpoint_final.pth"
    random = np.random.default_rng(0)

    def damage(content):
        content = bytearray(content)
        for position in random.integers(0, len(content), 3):
            content[position] = random.integers(256)
        return bytes(content)

    def read(file):
        read_foreign_checkpoint(file, "2d", "a.zip: checkpoint_final.pth")

    for change in (
        *[damage] * 60,
        lambda _: b"",
        lambda _: b"\x80\x02" + b"(" * 100_000 + b".",
        lambda _: random.bytes(500),
        lambda content: content[:-10],
    ):
        outcome(read, rewritten(source, tmp_path / "junk.pth", change))
    (tmp_path / "junk.pth").write_bytes(b"not a zip")
    assert outcome(read, tmp_path / "junk.pth") == "refused"


def test_a_checkpoint_that_unpacks_to_more_inside_is_refused(trained_folder, tmp_path):
    """torch would unpack it into memory: a megabyte becomes a gigabyte."""
    source = trained_folder / "fold_0" / "checkpoint_final.pth"
    file = rewritten(source, tmp_path / "a.pth", lambda same: same, zipfile.ZIP_DEFLATED)
    assert read_safely(file)  # it does
    with pytest.raises(UserError, match="compressed inside"):
        read_foreign_checkpoint(file, "2d", "a.zip: checkpoint_final.pth")
