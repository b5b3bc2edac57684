"""A long training holds as much memory, and as many files and processes, at its end as before."""

import json
import statistics

import pytest
import yaml
from a_torture import CONFIG, Run

pytest.importorskip("resource", reason="needs Linux")
pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("default")]

EPOCHS = 100  # twice
MORE_FILES = 10
WARM = 20  # until then libraries fill their caches
MORE_MEMORY = 10  # MiB over 80 epochs; an eighth of a MiB per epoch is seen


def grown(figures, key):
    """Return how much more it was in the last epochs than in the first ones after the warm-up."""
    early, late = figures[WARM : WARM + 10], figures[-10:]
    return statistics.median(f[key] for f in late) - statistics.median(f[key] for f in early)


@pytest.fixture(scope="module")
def lives(preprocessed, tmp_path_factory):
    """The figures of each epoch of two trainings in one process, the second with EMA."""
    run = Run(preprocessed, tmp_path_factory.mktemp("life"))
    train = CONFIG["train"] | {"num_epochs": EPOCHS, "num_iterations_per_epoch": 1}
    run.config.write_text(yaml.safe_dump(CONFIG | {"train": train}))
    averaged = run.config.with_name("averaged.yaml")
    averaged.write_text(yaml.safe_dump(CONFIG | {"train": train | {"ema": 0.9}}))
    code, said = run.train("long_life", str(averaged))
    assert (code, said) == (0, [])
    figures = [json.loads(line) for line in (run.folder / "figures").read_text().splitlines()]
    assert len(figures) == 2 * EPOCHS
    return figures[:EPOCHS], figures[EPOCHS:]


@pytest.mark.parametrize("half", [0, 1], ids=["plain", "ema"])
def test_nothing_grows(half, lives, record_property):
    found = {key: grown(lives[half], key) for key in lives[half][0]}
    record_property("figures", json.dumps([lives[half][WARM], lives[half][-1]]))
    print(half, lives[half][WARM], lives[half][-1], found)  # noqa: T201
    assert found["memory"] < MORE_MEMORY
    assert found["children's memory"] < MORE_MEMORY
    for key in ("threads", "Python's threads", "children"):
        assert found[key] <= 0, key
    for key in ("files", "children's files"):  # some belong to batches that are under way
        assert found[key] < MORE_FILES, key


def test_the_second_training_holds_no_more_than_the_first(lives):
    first, second = (life[WARM] for life in lives)
    assert second["children"] == first["children"]
    # One that sends tensors to the final validation's pool, and tqdm's; each is there once.
    assert second["Python's threads"] - first["Python's threads"] <= 2
    assert second["files"] - first["files"] < MORE_FILES
    assert second["memory"] - first["memory"] < 2 * MORE_MEMORY
