"""What the trainer does, tested without running it: network, optimizer, step, checkpoint."""

import json
import pydoc
import sys
from types import ModuleType

import pytest
import torch
from in_the_air import in_the_air, make_trainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_vit_trainer.checkpoints.content import unwrap
from nnunet_vit_trainer.config.schema import ViTModelConfig, ViTnnUNetConfig
from nnunet_vit_trainer.launch.backbones import find_backbone
from nnunet_vit_trainer.network import NETWORK_CLASS_NAME, build_network
from nnunet_vit_trainer.plans.derive import derive_plans
from nnunet_vit_trainer.training.step import deep_supervision_weights
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit
from vit_backbone import UserError, build_segmentation_model, create_backbone, load_weights
from vit_backbone.segmentation.model import ViTSegmentationModel


class Head(nn.Module):
    def __init__(self, embed_dim, num_classes):
        super().__init__()
        self.seg_layers = nn.ModuleList([nn.Conv2d(embed_dim, num_classes, 1)])

    def forward(self, features, image):
        return self.seg_layers[0](sum(features))


def create_segmentation_model(
    backbone_name="x",
    num_classes=1,
    use_lora=True,
    *,
    pretrained=None,
    in_channels=3,
    backbone_options=None,
    **unknown,
):
    return build_segmentation_model(
        lambda backbone: ViTSegmentationModel(backbone, Head(backbone.num_features, num_classes)),
        backbone_name=backbone_name,
        backbone_size=None,
        checkpoint_path=None,
        freeze_backbone=False,
        use_lora=use_lora,
        lora_rank=4,
        lora_alpha=8.0,
        lora_dropout=0.0,
        lora_target_modules=None,
        pretrained=pretrained,
        in_channels=in_channels,
        backbone_options=backbone_options,
    )


@pytest.fixture(scope="module", autouse=True)
def head_module():
    sys.modules["a_head"] = ModuleType("a_head")
    sys.modules["a_head.here"] = ModuleType("a_head.here")
    sys.modules["a_head.here"].create_segmentation_model = create_segmentation_model
    yield
    del sys.modules["a_head"], sys.modules["a_head.here"]


def network(in_channels=3, **options):
    torch.manual_seed(0)
    return build_network(in_channels, 4, head="a_head.here", backbone_name="test_vit", **options)


def test_nnunet_builds_the_network_from_plans():
    assert pydoc.locate(NETWORK_CLASS_NAME) is build_network
    built = get_network_from_plans(
        NETWORK_CLASS_NAME,
        {"head": "a_head.here", "backbone_name": "test_vit", "use_lora": True},
        [],
        input_channels=2,
        output_channels=4,
        deep_supervision=False,
    )
    assert built(torch.randn(1, 2, 40, 56)).shape == (1, 4, 40, 56)


def test_every_output_of_deep_supervision_weighs():
    assert deep_supervision_weights(3) == pytest.approx((4 / 7, 2 / 7, 1 / 7))


def test_plans_without_auxiliary_outputs_refuse_deep_supervision():
    with pytest.raises(UserError, match="nnUNetTrainerNoDeepSupervision_vit"):
        build_network(3, 4, True, head="a_head.here")


def test_what_a_weight_file_decides_reaches_the_network_through_the_plans(tmp_path):
    """Predicting needs the same position grid, and no weight file."""
    file = tmp_path / "weights.pth"
    torch.manual_seed(1)
    original, _, _ = create_backbone("dinov2", "small", pretrained=False, img_size=224)
    torch.save(original.state_dict(), file)
    model = ViTModelConfig(
        model_path="a_head.here",
        backbone="dinov2",
        backbone_size="small",
        checkpoint_path=str(file),
    )
    backbone, weights = find_backbone(model, None)
    file.rename(tmp_path / "away.pth")
    plans = {
        "plans_name": "p",
        "configurations": {
            "2d": {
                "patch_size": [28, 28],
                "batch_size": 2,
                "normalization_schemes": ["RGBTo01Normalization"] * 3,
            }
        },
    }
    derived = derive_plans(plans, "2d", "mine", ViTnnUNetConfig(model=model), backbone, weights)
    arguments = derived["configurations"]["2d"]["architecture"]["arch_kwargs"]
    rebuilt = build_network(3, 2, **json.loads(json.dumps(arguments)))
    assert rebuilt.backbone.pos_embed.shape == original.pos_embed.shape
    assert rebuilt.input_norm.mean == (0.485, 0.456, 0.406)
    report = load_weights(rebuilt.backbone, tmp_path / "away.pth")
    assert "resampled" not in report.line()
    assert report.sha256 == weights["sha256"]


def test_the_network_is_found_inside_of_torch_compile():
    model = nn.Linear(1, 1)
    assert unwrap(torch.compile(model)) is model


@pytest.mark.parametrize(("batch_size", "by_chance"), [(1, True), (2, False)])
def test_a_batch_of_one_tile_is_of_foreground_too(batch_size, by_chance, tmp_path):
    """nnU-Net takes the last third of a batch, rounded: none of one."""
    with in_the_air(tmp_path):
        trainer = make_trainer(batch_size=batch_size, accumulate_steps=2)
    assert trainer.probabilistic_oversampling == by_chance
    assert trainer.oversample_foreground_percent == 0.33


def test_plans_that_carry_no_vit_are_refused():
    with pytest.raises(UserError, match="carry no ViT"):
        nnUNetTrainer_vit({"plans_name": "nnUNetPlans"}, "2d", 0, {}, torch.device("cpu"))
