"""The trainer, and the parts of a training that it is put together of."""
