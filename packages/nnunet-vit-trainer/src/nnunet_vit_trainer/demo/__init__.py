"""The demo: the main job on a procedural data set, offline, on a CPU, by the real commands."""

from .steps import run_demo

__all__ = ["run_demo"]
