"""What timm records of its pretrained models."""

from timm.models import get_pretrained_cfg


def pretrained_statistics(timm_name: str) -> dict[str, list[float]] | None:
    """Return the ``mean`` and ``std`` of [0, 1] that a timm model's weights were trained with.

    Args:
        timm_name: with or without its tag; without it, timm's default weights are meant.

    Returns:
        Three values each, or ``None`` where timm does not know the model.
    """
    config = get_pretrained_cfg(timm_name)
    if config is None:
        return None
    return {"mean": list(config.mean), "std": list(config.std)}
