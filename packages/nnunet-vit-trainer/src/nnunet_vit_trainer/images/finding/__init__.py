"""Which images and masks a folder holds, and what belongs together."""
