"""What nnU-Net finds through nnUNet_extTrainer.

nnU-Net imports every module below that folder as a top-level module, so this folder holds only
this one file, and relative imports would fail in it.
"""

from nnunet_vit_trainer.trainer import nnUNetTrainer_vit, nnUNetTrainerNoDeepSupervision_vit

__all__ = ["nnUNetTrainerNoDeepSupervision_vit", "nnUNetTrainer_vit"]
