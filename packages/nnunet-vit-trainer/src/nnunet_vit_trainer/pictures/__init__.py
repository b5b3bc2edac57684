"""What a model sees and finds, as PNG files 1,000 pixels wide."""
