"""Folders of images and masks, as people have them, become raw data sets of nnU-Net."""
