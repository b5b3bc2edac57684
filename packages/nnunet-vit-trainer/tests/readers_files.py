"""What a reader of the documents brings along: images, masks, volumes and weight files.

`python readers_files.py photos FOLDER LABEL ...` writes twelve images and their masks, whose labels
are these values or colours; so do `volumes`, `images` (to predict) and `weights` (random ones).
"""

import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image, ImageColor

from nnunet_vit_trainer.demo.data import make_image

SIZE = 96


def photos(folder, *labels):
    """Write images/ and masks/; a label is a value (255) or a colour (#ff0000)."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (Path(folder) / kind).mkdir(parents=True)
    values = [ImageColor.getrgb(v) if v[0] == "#" else int(v) for v in labels]
    table = np.zeros((4, *np.shape(values[0])), np.uint8)
    table[1 : 1 + len(values)] = values
    for number in range(12):
        image, mask = make_image(rng, SIZE)
        Image.fromarray(image).save(f"{folder}/images/photo_{number:02d}.png")
        Image.fromarray(table[mask]).save(f"{folder}/masks/photo_{number:02d}.png")


def images(folder):
    """Write two images as nnU-Net names them."""
    rng = np.random.default_rng(1)
    Path(folder).mkdir()
    for number in range(2):
        Image.fromarray(make_image(rng, SIZE)[0]).save(f"{folder}/new_{number}_0000.png")


def volumes(folder):
    """Write a raw data set of six volumes of five slices."""
    rng = np.random.default_rng(0)
    for number in range(6):
        slices = [make_image(rng, SIZE) for _ in range(5)]
        for kind, mark, which in (("imagesTr", "_0000", 0), ("labelsTr", "", 1)):
            volume = SimpleITK.GetImageFromArray(np.stack([pair[which] for pair in slices]))
            volume.SetSpacing((1.0, 1.0, 3.0))
            (Path(folder) / kind).mkdir(parents=True, exist_ok=True)
            SimpleITK.WriteImage(volume, f"{folder}/{kind}/volume_{number}{mark}.nii.gz")
    about = {"channel_names": {"0": "grey"}, "numTraining": 6, "file_ending": ".nii.gz"}
    about["labels"] = {"background": 0, "stripes": 1, "spots": 2, "blotches": 3}
    (Path(folder) / "dataset.json").write_text(json.dumps(about))


def weights(file, timm_name="test_vit"):
    """Write the random weights of a ViT of timm's."""
    import torch
    from safetensors.torch import save_file

    from vit_backbone import create_backbone

    tensors = create_backbone(timm_name, pretrained=False)[0].state_dict()
    if Path(file).suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file)


if __name__ == "__main__":
    {"photos": photos, "images": images, "volumes": volumes, "weights": weights}[sys.argv[1]](
        *sys.argv[2:]
    )
