"""A small network, its optimizer and one step, for the tests of the recipe."""

import torch
from torch import nn

from nnunet_vit_trainer.network import build_network
from nnunet_vit_trainer.training.optimization import build_optimizer
from nnunet_vit_trainer.training.step import training_step

IMAGE, TARGET = torch.randn(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.long)


def network(in_channels=3, **options):
    torch.manual_seed(0)
    options = {"head": "linear", "backbone_name": "test_vit", "lora_dropout": 0.0} | options
    return build_network(in_channels, 4, **options)


def optimizer_of(model, **options):
    return build_optimizer(model, **{"initial_lr": 1e-3, "weight_decay": 0.1} | options)


def take_step(model, optimizer, batches=((IMAGE, TARGET),), loss=None, **options):
    loss = loss or nn.functional.cross_entropy
    options = {"gradient_clip": 12.0} | options
    return training_step(model, loss, optimizer, batches, **options).read()
