"""Export a trained model, and install what a stranger exported."""
