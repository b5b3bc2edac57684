"""What of a backbone trains: LoRA, and an adapted patch embedding."""
