"""For the tests of heads: a suite to inherit, and a fake backbone."""

from .fake_cuda import run_on_fake_cuda
from .suite import SIZES, HeadConformance
from .tools import FakeBackbone, response_center

__all__ = ["SIZES", "FakeBackbone", "HeadConformance", "response_center", "run_on_fake_cuda"]
