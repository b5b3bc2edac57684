"""For the tests of heads: a suite to inherit, and a fake backbone."""

from .suite import SIZES, HeadConformance
from .tools import FakeBackbone, response_center

__all__ = ["SIZES", "FakeBackbone", "HeadConformance", "response_center"]
