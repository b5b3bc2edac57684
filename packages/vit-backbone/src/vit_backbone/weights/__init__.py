"""Weight files: what they hold, in which layout, and how a backbone is filled with them."""
