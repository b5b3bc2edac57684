"""Prediction: nnU-Net's masks, in batches across tiles, mirrors and cases, in one process."""

from .predictor import Predictor as Predictor
