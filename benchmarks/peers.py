"""The networks that speed.py compares, built with random weights for one of nnU-Net's plans.

Ours and others' heads stand on the same DINOv3 ViT of timm. The U-Nets are those that nnU-Net
planned (planned.json); MONAI's UNETR has a ViT of its own, of the same width.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from head_costs import adamw
from heads import HEADS
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from plain_unetr import PlainUNETRHead
from torch import nn

from nnunet_vit_trainer.training.shortage.counting import with_states
from vit_backbone import create_backbone, find_head, get_vit_features
from vit_backbone.heads.recompute import set_recompute
from vit_backbone.segmentation.geometry import resized
from vit_heads_unetr import UNETRHead

PLANNED = Path(__file__).with_name("planned.json")


@dataclass(frozen=True)
class Plan:
    """What nnU-Net planned for a data set in two dimensions.

    Attributes:
        patch: height and width in pixels.
        batch: images a step.
        channels: of the image.
        classes: background among them.
        unets: a U-Net's name -> its ``architecture`` in the plans.
    """

    patch: tuple[int, int]
    batch: int
    channels: int
    classes: int
    unets: dict[str, dict[str, Any]]


def trainers_adamw(network: nn.Module) -> torch.optim.Optimizer:
    """Make AdamW of what trains, on CUDA by the fused kernel, as our trainer has it."""
    trained = [p for p in network.parameters() if p.requires_grad]
    if trained[0].device.type != "cuda":
        return adamw(network)
    return with_states(torch.optim.AdamW(trained, fused=True))


@dataclass(frozen=True)
class Peer:
    """A network of the comparison.

    Attributes:
        build: of a plan and a size of the ViT, the network.
        kind: whose it is.
        optimizer: what trains it, with its states.
    """

    build: Callable[[Plan, str], nn.Module]
    kind: Literal["ours", "ViT", "plain", "other", "nnU-Net"]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = trainers_adamw


def plans() -> dict[str, Plan]:
    """Read what nnU-Net planned: a data set's name -> its plan."""
    return {
        name: Plan(**{**of, "patch": tuple(of["patch"])})
        for name, of in json.loads(PLANNED.read_text()).items()
    }


def peers() -> dict[str, Peer]:
    """List the networks by name."""
    recommended = "segformer_64_pyramid_shortcut_stem"
    return {
        "ViT alone": Peer(_bare, "ViT"),
        "linear": Peer(_ours("linear"), "ours"),
        "linear, LoRA": Peer(_ours("linear", lora=True), "ours"),
        "linear_stem": Peer(_ours("linear_stem"), "ours"),
        "segformer": Peer(_ours("segformer"), "ours"),
        "recommended": Peer(_ours(recommended), "ours"),
        "recommended, LoRA": Peer(_ours(recommended, lora=True), "ours"),
        "unetr_light": Peer(_ours("unetr_light"), "ours"),
        "unetr": Peer(_ours("unetr"), "ours"),
        "unetr, recomputing": Peer(_ours("unetr", recompute=True), "ours"),
        "UNETR, plain assembly": Peer(_plain_unetr, "plain"),
        "SegFormer head (transformers)": Peer(_transformers_segformer, "other"),
        "DPT (smp)": Peer(_smp_dpt, "other"),
        "UNETR (MONAI)": Peer(_monai_unetr, "other"),
        "PlainConvUNet": Peer(_unet("PlainConvUNet"), "nnU-Net", nnunet_sgd),
        "PlainConvUNet, deep supervision": Peer(
            _unet("PlainConvUNet", deep_supervision=True), "nnU-Net", nnunet_sgd
        ),
        "ResEncUNet": Peer(_unet("ResidualEncoderUNet"), "nnU-Net", nnunet_sgd),
    }


def nnunet_sgd(network: nn.Module) -> torch.optim.Optimizer:
    """Make nnU-Net's own optimizer."""
    return with_states(
        torch.optim.SGD(
            network.parameters(), lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
    )


def plain_and_ours(embed_dim: int, classes: int) -> tuple[nn.Module, nn.Module]:
    """Build the plain UNETR head and ours with the same weights."""
    plain, ours = PlainUNETRHead(embed_dim, classes), UNETRHead(embed_dim, classes)
    plain.load_state_dict(ours.state_dict())
    return plain, ours


class OnViT(nn.Module):
    """A head on a ViT's features, as anyone joins them: its logits resampled to the image.

    Args:
        backbone: a timm ViT.
        head: of features and image; ``None`` gives the last features themselves.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, H, W), in whole patches, into (B, K, H, W)."""
        features = get_vit_features(self.backbone, image)
        if self.head is None:
            return features[-1]
        return resized(self.head(features, image), image.shape[-2:])


def _ours(
    head: str, lora: bool = False, recompute: bool = False
) -> Callable[[Plan, str], nn.Module]:
    def build(plan: Plan, size: str) -> nn.Module:
        name, options = HEADS[head]
        model = find_head(name)(
            "dinov3",
            size,
            num_classes=plan.classes,
            pretrained=False,
            use_lora=lora,
            in_channels=plan.channels,
            **options,
        )
        if recompute:
            set_recompute(model.head)
        return model

    return build


def _vit(plan: Plan, size: str) -> tuple[nn.Module, str]:
    backbone, _, name = create_backbone("dinov3", size, pretrained=False, in_chans=plan.channels)
    return backbone, name


def _bare(plan: Plan, size: str) -> nn.Module:
    return OnViT(_vit(plan, size)[0], None)


def _plain_unetr(plan: Plan, size: str) -> nn.Module:
    backbone, _ = _vit(plan, size)
    return OnViT(backbone, PlainUNETRHead(backbone.num_features, plan.classes))


class _OfFeatures(nn.Module):
    """Call a head that takes features alone."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return self.head(features)


def _transformers_segformer(plan: Plan, size: str) -> nn.Module:
    from transformers import SegformerConfig
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    backbone, _ = _vit(plan, size)
    config = SegformerConfig(
        hidden_sizes=[backbone.num_features] * 4,
        decoder_hidden_size=256,
        num_labels=plan.classes,
    )
    return OnViT(backbone, _OfFeatures(SegformerDecodeHead(config)))


def _smp_dpt(plan: Plan, size: str) -> nn.Module:
    from segmentation_models_pytorch import DPT

    return DPT(
        f"tu-{_vit(plan, size)[1]}",
        encoder_weights=None,
        in_channels=plan.channels,
        classes=plan.classes,
        dynamic_img_size=True,
    )


def _monai_unetr(plan: Plan, size: str) -> nn.Module:
    from monai.networks.nets import UNETR

    backbone, _ = _vit(plan, size)
    width = backbone.num_features
    return UNETR(
        plan.channels,
        plan.classes,
        plan.patch,
        hidden_size=width,
        mlp_dim=4 * width,
        num_heads=width // 64,
        spatial_dims=2,
    )


def _unet(name: str, deep_supervision: bool = False) -> Callable[[Plan, str], nn.Module]:
    def build(plan: Plan, size: str) -> nn.Module:
        architecture = plan.unets[name]
        return get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            plan.channels,
            plan.classes,
            deep_supervision=deep_supervision,
        )

    return build
