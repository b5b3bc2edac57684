"""The commands, one file each: the parser, and what is printed."""
