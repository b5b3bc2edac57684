"""For all packages: skip what needs a GPU where there is none, and compute in one thread.

How work is shared between threads depends on how busy the machine is, and so does rounding: two
processes, or two runs, would not agree bit for bit. Tests' own processes inherit it.
"""

import os

import pytest

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_DYNAMIC": "FALSE"}  # before torch is imported


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
