"""What weight files of the zoo hold, each with the features of its own implementation.

Hugging Face's models are built at full depth with random weights and exported in their own layout;
the other layouts are timm's models renamed as their releases name them.
"""

import argparse
import re

import numpy as np
import pytest
import torch

from vit_backbone import create_backbone, get_vit_features


def randomized(model):
    """Give every parameter a random value that keeps features lively (LayerScale too)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.02 if parameter.ndim > 1 else 0.1
            noise = scale * torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if re.search(r"norm.*weight$|gamma|lambda1", name) else 0.0
            parameter.copy_(noise + centre)
    return model.eval()


def timm_state(name, size=None, **options):
    model = randomized(create_backbone(name, size, pretrained=False, **options)[0])
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def rename(state, *pairs):
    for pattern, replacement in pairs:
        state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
    return state


def timm_features(model):
    return lambda image: get_vit_features(model, image)[-1]


def hugging_face(kind, **config):
    transformers = pytest.importorskip("transformers")
    model = randomized(
        getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))
    )
    registers = config.get("num_register_tokens", 0)

    def features(image):
        tokens = model(image).last_hidden_state[:, 1 + registers :]
        height, width = (side // config["patch_size"] for side in image.shape[-2:])
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    return {k: v.clone().contiguous() for k, v in model.state_dict().items()}, features


PERIODS = (100 ** (torch.arange(16) / 16)).bfloat16()  # of DINOv3's RoPE, as its files hold them


SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}


# Each case: what the file holds, the features of its own implementation, the backbone to name,
# and the image side. The names say what a user of that file would write.
def retfound_mae():
    model, state = timm_state("retfound", "large")
    state |= {
        "mask_token": torch.zeros(1, 1, 512),
        "decoder_embed.weight": torch.zeros(512, 1024),
        "decoder_blocks.0.norm1.weight": torch.zeros(512),
    }
    arguments = argparse.Namespace(lr=1e-3, output_dir="out")
    content = {"model": state, "optimizer": {}, "epoch": 799, "scaler": {}, "args": arguments}
    return content, timm_features(model), ("retfound", None), 224


def retfound_fine_tuned():
    model, state = timm_state("retfound", "large")
    state = rename(state, (r"^norm\.", "fc_norm."))
    state |= {"head.weight": torch.zeros(5, 1024), "head.bias": torch.zeros(5)}
    return {"model": state, "epoch": np.float64(3)}, timm_features(model), ("retfound", None), 224


def retfound_dinov2():
    model, state = timm_state("dinov2", "large", img_size=224)
    state = rename(state, (r"^", "backbone."))
    state |= {
        "backbone.mask_token": torch.zeros(1, 1024),
        "dino_head.last_layer.weight": torch.zeros(3, 3),
        "ibot_head.mlp.0.weight": torch.zeros(3, 3),
    }
    return {"teacher": state}, timm_features(model), ("retfound", None), 224


def visionfm():
    model, state = timm_state("visionfm", "base")
    state = rename(state, (r"^", "module.backbone."))
    state |= {
        "module.backbone.masked_embed": torch.zeros(1, 768),
        "module.head.mlp.0.weight": torch.zeros(3, 3),
    }
    content = {"student": {"module.backbone.norm.bias": torch.zeros(1)}, "teacher": state}
    return content, timm_features(model), ("visionfm", None), 224


def dinov2_official():
    model, state = timm_state("dinov2", "small")
    return (
        state | {"mask_token": torch.zeros(1, 384)},
        timm_features(model),
        ("dinov2", "small"),
        518,
    )


def dinov2_registers():
    model, state = timm_state("dinov2", "small_reg4")
    state = rename(state, ("^reg_token$", "register_tokens"))
    position = torch.randn(1, 1, 384)
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    state["cls_token"] = state["cls_token"] - position
    state["mask_token"] = torch.zeros(1, 384)
    return state, timm_features(model), ("dinov2", "small_reg4"), 518


def dinov2_chunked():
    model, state = timm_state("dinov2", "small")
    state = {
        re.sub(r"^blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 3}.{m[1]}.", key): value
        for key, value in state.items()
    }
    state = rename(state, (r"^", "backbone.")) | {"backbone.mask_token": torch.zeros(1, 384)}
    return {"teacher": state}, timm_features(model), ("dinov2", "small"), 518


def dinov2_hugging_face():
    config = {**SMALL, "image_size": 518, "patch_size": 14}
    state, features = hugging_face("Dinov2", **config)
    return state, features, ("dinov2", "small"), 518


def dinov2_hugging_face_older():
    state, features, name, side = dinov2_hugging_face()
    for new, old in (("q", "query"), ("k", "key"), ("v", "value")):
        state = rename(state, (rf"\.attention\.{new}_proj\.", rf".attention.attention.{old}."))
    state = rename(state, (r"\.attention\.o_proj\.", ".attention.output.dense."), ("^", "dinov2."))
    state |= {"classifier.weight": torch.zeros(2, 768)}
    return state, features, name, side


def dinov3_names(state, with_bias):
    state = rename(
        state, ("^reg_token$", "storage_tokens"), (r"\.gamma_([12])$", r".ls\1.gamma"),
        (r"\.fc1_g\.", ".w1."), (r"\.fc1_x\.", ".w2."),
    )  # fmt: skip
    if any(".w1." in key for key in state):
        state = rename(state, (r"\.mlp\.fc2\.", ".mlp.w3."))
    width = state["norm.weight"].numel()
    state |= {"mask_token": torch.zeros(1, width), "rope_embed.periods": PERIODS}
    for key in [key for key in state if key.endswith(".attn.qkv.weight")] if with_bias else []:
        stem = key.removesuffix("weight")
        q = state.pop(key.replace("qkv.weight", "q_bias"), torch.zeros(width))
        v = state.pop(key.replace("qkv.weight", "v_bias"), torch.zeros(width))
        state[f"{stem}bias"] = torch.cat([q, torch.zeros(width), v])
        state[f"{stem}bias_mask"] = torch.ones(3 * width)
    return state


def dinov3_official(size="small"):
    model, state = timm_state("dinov3", size)
    return dinov3_names(state, with_bias=True), timm_features(model), ("dinov3", size), 256


def dinov3_official_base():
    return dinov3_official("base")


def dinov3_official_small_plus():
    return dinov3_official("small_plus")


def dinov3_hugging_face(prefix="model.", gated=False):
    config = {**SMALL, "patch_size": 16, "num_register_tokens": 4, "use_gated_mlp": gated}
    config["intermediate_size"] = 1536
    state, features = hugging_face("DINOv3ViT", **config, hidden_act="silu" if gated else "gelu")
    state = rename(state, (r"^model\.", prefix))
    return state, features, ("dinov3", "small_plus" if gated else "small"), 256


def dinov3_hugging_face_older():
    return dinov3_hugging_face(prefix="")


def dinov3_hugging_face_gated():
    return dinov3_hugging_face(gated=True)


def meddinov3():
    model, state = timm_state("dinov3", "base", norm_eps=1e-6)
    state = rename(dinov3_names(state, with_bias=False), (r"^", "backbone."))
    state |= {"dino_head.mlp.0.weight": torch.zeros(1), "ibot_head.mlp.0.bias": torch.zeros(1)}
    return {"teacher": state}, timm_features(model), ("dinov3", "base"), 256


def timm_small():
    model, state = timm_state("dinov2", "small")
    return state, timm_features(model), ("dinov2", "small"), 518


CASES = {
    "RETFound MAE": (retfound_mae, "MAE", "timm"),
    "RETFound MAE, fine-tuned": (retfound_fine_tuned, "timm", "timm"),
    "RETFound DINOv2": (retfound_dinov2, "DINOv2 training checkpoint", "timm"),
    "VisionFM": (visionfm, "iBOT", "timm"),
    "DINOv2": (dinov2_official, "DINOv2", "timm"),
    "DINOv2, registers": (dinov2_registers, "DINOv2", "timm"),
    "DINOv2, chunked": (dinov2_chunked, "chunked DINOv2", "timm"),
    "DINOv2, Hugging Face": (dinov2_hugging_face, "Hugging Face DINOv2", "transformers"),
    "DINOv2, Hugging Face 4": (dinov2_hugging_face_older, "Hugging Face DINOv2", "transformers"),
    "DINOv3": (dinov3_official, "DINOv3", "timm"),
    "DINOv3, zero biases": (dinov3_official_base, "DINOv3", "timm"),
    "DINOv3, gated": (dinov3_official_small_plus, "DINOv3", "timm"),
    "DINOv3, Hugging Face": (dinov3_hugging_face, "Hugging Face DINOv3", "transformers"),
    "DINOv3, Hugging Face 4": (dinov3_hugging_face_older, "Hugging Face DINOv3", "transformers"),
    "DINOv3, HF gated": (dinov3_hugging_face_gated, "Hugging Face DINOv3", "transformers"),
    "MedDINOv3": (meddinov3, "MedDINOv3", "timm"),
    "timm": (timm_small, "timm", "timm"),
}
