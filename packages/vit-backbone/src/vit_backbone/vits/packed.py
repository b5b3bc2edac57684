"""Linear layers whose weights are laid out for oneDNN once: inference on a CPU.

torch multiplies float32 matrices on a CPU by MKL, which reaches less than half of what an AMD core
can; oneDNN, which computes torch's convolutions, reaches all of it. Both round in float32, each in
its own order.
"""

import platform
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vit_backbone.errors import UserError
from vit_backbone.vits.layers import is_untouched

_X86 = ("x86_64", "amd64")  # elsewhere nothing was measured


class PackedLinear(nn.Module):
    """A linear layer that oneDNN computes; not to be trained, filled or moved.

    Its ``state_dict`` is `torch.nn.Linear`'s. A copy, and one that was pickled, is packed anew.

    Under autocast, and where a gradient is asked for or tokens are not float32, it is computed as
    `torch.nn.Linear` is, and slower.

    Args:
        linear: with float32 weights on a CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias: Any = linear.bias  # or None, which torch's annotation leaves out
        self.bias = None if bias is None else bias.detach()
        self._packed = linear.weight.detach().to_mkldnn()
        # torch would speak of unexpected keys or, not strict, leave them out.
        self.register_load_state_dict_pre_hook(lambda module, *_: refuse_packed(module))

    @property
    def weight(self) -> torch.Tensor:
        """The weights (out, in), in torch's layout: for who computes with them by itself."""
        return self._packed.to_dense()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Let `copy` and `pickle` take the weights in torch's layout: oneDNN's has no storage."""
        return _packed_again, (self.weight, self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out) of (..., in)."""
        differentiable = x.requires_grad and torch.is_grad_enabled()
        if differentiable or x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type):
            return functional.linear(x, self.weight, self.bias)
        # The operator that torch.compile puts in a linear layer's place.
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias


def _packed_again(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    outputs, inputs = weight.shape
    with torch.device("meta"):
        linear = nn.Linear(inputs, outputs, bias=bias is not None)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return PackedLinear(linear).eval() if _can_pack() else linear.eval()


def refuse_packed(module: nn.Module) -> None:
    """Refuse what is to be filled or exported and holds packed layers, whose weights are copies.

    Args:
        module: any.

    Raises:
        UserError: it was packed.
    """
    if any(isinstance(part, PackedLinear) for part in module.modules()):
        raise UserError(
            "the linear layers are packed (pack_linears); fill or export the module before that"
        )


def pack_linears(module: nn.Module) -> None:
    """Lay the weights of all linear layers out for oneDNN, in place, to predict on a CPU.

    Outputs change by float32's rounding alone. Elsewhere than on an x86 CPU, and in a torch without
    oneDNN, nothing is changed. The module cannot be trained, filled or moved afterwards; its
    ``state_dict`` stays what it was.

    Args:
        module: in evaluation mode; only layers inside of it, in float32 on a CPU and without hooks,
            are packed.

    Raises:
        UserError: it holds LoRA adapters, which could not be merged any more.
    """
    if any(".lora_" in name for name, _ in module.named_parameters()):
        raise UserError("the module holds LoRA adapters; merge them (disable_lora) before packing")
    if not _can_pack():
        return
    made: dict[nn.Module, PackedLinear] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if name and is_untouched(layer, nn.Linear) and _is_packable(layer):
            made[layer] = made.get(layer) or PackedLinear(layer)
            module.set_submodule(name, made[layer])


def _can_pack() -> bool:
    return torch.backends.mkldnn.is_available() and platform.machine().lower() in _X86


def _is_packable(layer: nn.Linear) -> bool:
    return layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32
