"""The segmentation model that joins a backbone and a head."""
