"""Whether a layer's weights may be used without calling it: folded into others, or packed."""

from torch import nn


def is_untouched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Say whether calling a layer does what its kind does, with the weights that it shows.

    Not so of an adapter or a parametrized layer (other classes), nor with a ``forward`` that a tool
    set on it, nor with a hook: it may make the weights, as torch's ``weight_norm``,
    ``spectral_norm`` and ``prune`` do, or look at gradients.

    Args:
        layer: of a network.
        kind: its class when it was built.
    """
    hooks = (
        layer._forward_pre_hooks,
        layer._forward_hooks,
        layer._backward_pre_hooks,
        layer._backward_hooks,
    )
    return type(layer) is kind and "forward" not in layer.__dict__ and not any(hooks)
