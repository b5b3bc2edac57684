"""A plan for a ViT: spacing, tile and batch by the backbone's patches and the device's memory."""
