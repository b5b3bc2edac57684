"""A training step and an inference as nnU-Net takes them, on noise, and their FLOP."""

import copy

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from peers import Plan
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vit_heads_unetr import UNETRHead

LOSS = DC_and_CE_loss(
    {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
    {},
    dice_class=MemoryEfficientSoftDiceLoss,
)


def draw(plan: Plan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a batch of noise, and labels for it."""
    image = torch.randn(plan.batch, plan.channels, *plan.patch, device=device)
    target = torch.randint(plan.classes, (plan.batch, 1, *plan.patch), device=device)
    return image, target


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    image: torch.Tensor,
    target: torch.Tensor,
) -> None:
    """Take a training step as nnU-Net does."""
    network.train()
    optimizer.zero_grad(set_to_none=True)
    with autocast(image.device):
        loss = loss_of(network(image), target)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 12)
    optimizer.step()


def train_on_noise(plan: Plan, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take a training step where the network is."""
    device = next(network.parameters()).device
    train(network, optimizer, *draw(plan, device))


def infer(network: nn.Module, image: torch.Tensor) -> None:
    """Answer for a batch without gradients."""
    network.eval()
    with torch.inference_mode(), autocast(image.device):
        network(image)


def loss_of(output: torch.Tensor | list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Take nnU-Net's own loss, over each output of deep supervision; of features, their square."""
    if isinstance(output, list):
        strides = [target.shape[-1] // of.shape[-1] for of in output]
        weights = [1 / stride for stride in strides[:-1]]  # the coarsest one's is 0
        weights = [weight / sum(weights) for weight in weights] + [0.0]
        targets = [target[..., ::stride, ::stride] for stride in strides]
        return DeepSupervisionWrapper(LOSS, weights)(output, targets)
    if output.shape[-2:] != target.shape[-2:]:  # the ViT alone
        return output.float().square().mean()
    return LOSS(output, target)


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 on CUDA, in float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def count_flop(network: nn.Module, plan: Plan) -> dict[str, int]:
    """Count the FLOP of one image's inference and of one training step (a multiply-add is two).

    Counted on meta, but for our UNETR on a CPU, which computes otherwise there: it takes the step.
    """
    device = next(network.parameters()).device
    if device.type != "cpu" or not any(isinstance(part, UNETRHead) for part in network.modules()):
        device = torch.device("meta")
    network = copy.deepcopy(network).to(device)
    image, target = draw(plan, device)
    # Written out as matrix products: the counter does not know every fused attention.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            network(image)
        with FlopCounterMode(display=False) as step:
            loss_of(network(image), target).backward()
    return {"flop": forward.get_total_flops() // plan.batch, "step_flop": step.get_total_flops()}
