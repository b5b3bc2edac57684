"""The config: its schema, how a file is found, read and checked, and what is shipped."""
