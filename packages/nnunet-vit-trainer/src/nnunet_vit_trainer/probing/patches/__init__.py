"""What is probed: tiles of the data, the labels in their patches, and the tokens of those."""
