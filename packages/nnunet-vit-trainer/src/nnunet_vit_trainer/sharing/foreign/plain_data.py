"""Copy what a stranger pickled into plain data: no larger, no deeper, and nothing beside it."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch

from vit_backbone import UserError

_ATOMS = (str, int, float, bool, type(None), torch.device)
_NUMBERS = "biuf"  # numpy's kinds: truth values, integers, floating-point
_DEEPEST = 64


def plain_copy(content: Any, limit: int, source: str) -> Any:
    """Copy dicts, lists and tuples of texts, numbers, arrays and tensors; refuse anything else.

    A pickle of a hundred bytes can mean an array of a terabyte, a list that holds one other a
    thousand times (which holds one other a thousand times), or a thousand lists in each other;
    containers and tensors can carry attributes. All of it would be written out again.

    Args:
        content: see `checkpoints.read_safely`.
        limit: values and bytes of arrays and tensors, of which each takes a byte of the file.
        source: what it is from, for messages.

    Raises:
        UserError: too much, too deep, or of another type.
    """
    return _Copier(limit, source).copy(content)


def is_plain_tensor(value: Any) -> bool:
    """Say whether it is a tensor in memory whose every element has a place of its own there.

    Args:
        value: anything.
    """
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


class _Copier:
    def __init__(self, limit: int, source: str) -> None:
        self.left = limit
        self.source = source
        self.storages: set[int] = set()

    def copy(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        self._take(1 + (value.nbytes if kind is np.ndarray else 0))
        if depth > _DEEPEST:
            raise UserError(f"{self.source} is nested deeper than {_DEEPEST} levels")
        if kind in (dict, OrderedDict):
            # Not value.items(): an OrderedDict can carry an attribute of that name.
            items = dict.items(value)
            return {self._key(name): self.copy(inner, depth + 1) for name, inner in items}
        if kind in (list, tuple):
            return kind(self.copy(inner, depth + 1) for inner in value)
        if kind in _ATOMS or self._is_of_numbers(value):
            return value
        if is_plain_tensor(value):
            storage = value.untyped_storage()
            if storage.data_ptr() not in self.storages:  # tensors may share one
                self.storages.add(storage.data_ptr())
                self._take(storage.nbytes())
            return torch.Tensor.detach(value)  # leaves attributes behind
        raise UserError(f"{self.source} holds a {kind.__name__} that is no plain data")

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise UserError(f"{self.source} claims to hold more than the file is large")

    def _key(self, name: Any) -> Any:
        if type(name) not in _ATOMS:
            raise UserError(f"{self.source} names something by a {type(name).__name__}")
        return name

    @staticmethod
    def _is_of_numbers(value: Any) -> bool:
        array = type(value) is np.ndarray or isinstance(value, np.generic)
        return array and value.dtype.kind in _NUMBERS
