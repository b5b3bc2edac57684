"""Lines of 1 to 2 px on noise: what each head finds on a frozen ViT.

    python benchmarks/thin_structures.py WEIGHTS    # a ViT-S/14 in DINOv2 layout

Every head of heads.py trains on the same frozen ViT-S, its patch embedding resampled to 16 px (the
features are computed once), for as many iterations, on the same images and seeds. Dice is of the
foreground, pooled over unseen images.
"""

import argparse
import itertools
import statistics
import time

import torch
import torch.nn.functional as F
from heads import HEADS

from vit_backbone import create_backbone, find_head, get_vit_features
from vit_backbone.segmentation.geometry import fit_to_image

SIDE = 128


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images (count, 3, SIDE, SIDE) of noise with three curves each, and their masks."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(SIDE) + 0.5
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).flatten(0, 1)
    t = torch.linspace(0, 1, 3 * SIDE)[:, None]
    masks = torch.zeros(count, SIDE * SIDE, dtype=torch.bool)
    for mask, _ in itertools.product(masks, range(3)):
        start, bend, end = torch.rand(3, 2, generator=generator) * SIDE
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        width = 1 + torch.rand(1, generator=generator)
        mask |= torch.cdist(pixels, curve).amin(1) <= width / 2
    masks = masks.view(count, 1, SIDE, SIDE)
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    return (0.5 * noise + 2 * masks).expand(-1, 3, -1, -1), masks[:, 0].long()


def dice_of(logits: torch.Tensor, masks: torch.Tensor) -> float:
    """Dice of the foreground, pooled."""
    found, true = logits.argmax(1) == 1, masks == 1
    return (2 * (found & true).sum() / (found.sum() + true.sum())).item()


def loss_of(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice, as nnU-Net's."""
    foreground, true = logits.softmax(1)[:, 1], masks.float()
    dice = 2 * (foreground * true).sum() / (foreground.sum() + true.sum() + 1e-5)
    return F.cross_entropy(logits, masks) - dice


def answer(head: torch.nn.Module, taps: list[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Logits at the image's size, as ViTSegmentationModel gives them."""
    return fit_to_image(head(taps, images), (SIDE, SIDE), (SIDE, SIDE))


def build(name: str) -> torch.nn.Module:
    """Build a head; the ViT that comes with it is not used."""
    path, options = HEADS[name]
    if path == "segformer":
        options = {"hidden_size": 64, **options}
    create = find_head(path)
    return create(
        "dinov2", "small", num_classes=2, pretrained=False, use_lora=False, **options
    ).head


def train(
    name: str,
    seed: int,
    iterations: int,
    taps: list[torch.Tensor],
    images: torch.Tensor,
    masks: torch.Tensor,
) -> torch.nn.Module:
    """Train a head on features."""
    torch.manual_seed(seed)
    head = build(name).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=iterations)
    for _ in range(iterations):
        batch = torch.randint(len(masks), (4,))
        loss = loss_of(answer(head, [tap[batch] for tap in taps], images[batch]), masks[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


def main(weights: str, iterations: int, seeds: int, heads: list[str]) -> None:
    """Print a row per head: Dice of every seed, the mean, and seconds."""
    backbone, _, _ = create_backbone("dinov2", "small", weights, patch_size=16)
    backbone.requires_grad_(False).eval()
    images, masks = draw(160, seed=0)
    unseen, truth = draw(40, seed=1)
    with torch.no_grad():
        taps, unseen_taps = get_vit_features(backbone, images), get_vit_features(backbone, unseen)
    print("| head | Dice per seed | mean | s |")
    print("|---|---|---|---|")
    for name in heads:
        start, dices = time.perf_counter(), []
        for seed in range(seeds):
            head = train(name, seed, iterations, taps, images, masks)
            with torch.no_grad():
                dices.append(dice_of(answer(head, unseen_taps, unseen), truth))
        print(
            f"| {name} | {', '.join(f'{d:.3f}' for d in dices)} "
            f"| {statistics.mean(dices):.3f} | {time.perf_counter() - start:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a ViT-S/14 in DINOv2 layout")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    arguments = parser.parse_args()
    main(arguments.weights, arguments.iterations, arguments.seeds, arguments.heads)
