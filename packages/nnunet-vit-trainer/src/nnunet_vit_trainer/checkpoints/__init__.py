"""What a checkpoint holds, how it is written, and a trained model's folder."""
