"""Heads: how they are found, the decorator that makes their factories, and the linear one."""
