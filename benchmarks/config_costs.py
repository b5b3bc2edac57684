"""Count what each shipped config costs, and write it into the comments at its head.

    python benchmarks/config_costs.py              # all of them
    python benchmarks/config_costs.py recommended  # those whose name has it

Counted as in head_costs.py, for 3 channels and 3 classes, with random weights: parameters, GFLOP of
one image's forward pass, GiB at the peak of a training step of batch 2 in float32 with AdamW.
"""

import re
import sys
from functools import partial

from head_costs import CLASSES, SIDES, count_gflop, count_peak, training_step

from nnunet_vit_trainer.config.catalogue import shipped_configs, shipped_file
from nnunet_vit_trainer.config.reading import load_config
from vit_backbone import ViTSegmentationModel, find_head


def build(name: str) -> ViTSegmentationModel:
    """Build a shipped config's network, for 3 channels, with random weights."""
    config = load_config(name)
    model, lora = config.model, config.lora
    create = find_head(model.model_path)
    return create(
        *(model.backbone, model.backbone_size),
        num_classes=CLASSES,
        pretrained=False,
        use_lora=config.tune == "lora",
        lora_rank=lora.r,
        lora_target_modules=lora.target_modules,
        **model.decoder.options(),
    ).train()


def rounded(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{float(f'{value:.3g}'):g}"


def costs(model: ViTSegmentationModel) -> dict[str, str]:
    """Say what the three lines of a config's head say."""
    parameters = list(model.parameters())
    everything = sum(p.numel() for p in parameters) / 1e6
    trained = sum(p.numel() for p in parameters if p.requires_grad) / 1e6
    gflop = [count_gflop(model, side) for side in SIDES]
    peak = [count_peak(model, partial(training_step, side=side)) for side in SIDES]
    of_them = "all" if trained == everything else f"{trained:.3g} M"
    return {
        "Size": f"{everything:.3g} M, {of_them} trained",
        "GFLOP": f"{rounded(gflop[0])} at {SIDES[0]} px, {rounded(gflop[1])} at {SIDES[1]}",
        "Memory": f"{peak[0]:.2f} GiB at {SIDES[0]} px, {peak[1]:.2f} at {SIDES[1]}",
    }


def main(only: str) -> None:
    """Write the lines of each config."""
    for name in (name for name in shipped_configs() if only in name):
        file = shipped_file(name)
        text = file.read_text()
        for note, said in costs(build(name)).items():
            text = re.sub(rf"^# {note}: .*$", f"# {note}: {said}", text, flags=re.M)
            print(f"{name}: {note}: {said}", flush=True)
        file.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
