"""What a timm ViT is, and what is mended of it: families, taps, features, position embeddings."""
