"""The pixels of images and masks, without losing a bit."""
