"""Trained results as they lie on the disk: what they reached, what they cost, what they are."""
