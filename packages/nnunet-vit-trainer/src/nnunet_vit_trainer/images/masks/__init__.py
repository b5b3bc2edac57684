"""The values and colours in masks, and which labels they are."""
