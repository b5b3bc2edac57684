"""The statistics of images that backbones were trained with, by the names that configs use."""

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

# On [0, 1]: VisionFM's per modality, and DINOv3's satellite models'.
UNIT_RANGE_STATISTICS: dict[str, dict[str, list[float]]] = {
    "imagenet": IMAGENET,
    "dinov3_sat493m": {"mean": [0.430, 0.411, 0.296], "std": [0.213, 0.156, 0.143]},
    "visionfm_fundus": {
        "mean": [0.42374, 0.26095, 0.12840],
        "std": [0.29483, 0.20167, 0.13668],
    },
    "visionfm_oct": {"mean": [0.2109], "std": [0.1760]},
    "visionfm_ffa": {"mean": [0.2020], "std": [0.1741]},
    "visionfm_ubm": {"mean": [0.0961], "std": [0.2098]},
    "visionfm_mri": {"mean": [0.1737], "std": [0.1620]},
    "visionfm_ultrasound": {
        "mean": [0.05989, 0.05979, 0.05669],
        "std": [0.15428, 0.15505, 0.14464],
    },
    "visionfm_external": {
        "mean": [0.49363, 0.36325, 0.25957],
        "std": [0.32001, 0.27109, 0.21992],
    },
    "visionfm_slitlamp": {
        "mean": [0.55567, 0.40289, 0.38858],
        "std": [0.26517, 0.23312, 0.23904],
    },
}

# On Hounsfield units: MedDINOv3's window.
RAW_STATISTICS: dict[str, dict[str, list[float]]] = {
    "meddinov3_ct": {"mean": [65.108], "std": [178.017], "clamp": [-1000.0, 1000.0]},
}

NAMES = ("auto", "none", *UNIT_RANGE_STATISTICS, *RAW_STATISTICS)
