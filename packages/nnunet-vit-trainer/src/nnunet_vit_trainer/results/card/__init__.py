"""The model card: what a model is, from its plans alone; no torch, and nothing is unpickled."""
