"""Neighbouring slices as channels: 2.5D for networks of slices."""
