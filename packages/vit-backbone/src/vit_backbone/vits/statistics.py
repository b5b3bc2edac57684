"""What timm records of its pretrained models."""

import timm
from timm.models import get_pretrained_cfg

from vit_backbone.errors import UserError

from .families import MODEL_CONFIGS


def refuse_unknown(timm_name: str) -> None:
    """Refuse a name that timm has no model of, or no weights where it has a tag.

    Args:
        timm_name: with or without a tag.

    Raises:
        UserError: such a name, with those near it.
    """
    architecture, _, tag = timm_name.partition(".")
    if not timm.is_model(timm_name):
        near = timm.list_models(f"*{architecture}*", include_tags=False)[:5]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UserError(
            f"backbone {timm_name!r} is neither a family nor a timm model; "
            f"families: {', '.join(MODEL_CONFIGS)}{hint}"
        )
    tagged = timm.list_models(f"{architecture}.*", include_tags=True)
    if tag and timm_name not in tagged:
        known = ", ".join(tagged) or f"none: leave .{tag} away"
        raise UserError(f"backbone {timm_name!r}: timm has no such weights; there are {known}")


def pretrained_statistics(timm_name: str) -> dict[str, list[float]] | None:
    """Return the ``mean`` and ``std`` of [0, 1] that a timm model's weights were trained with.

    Args:
        timm_name: with or without its tag; without it, timm's default weights are meant.

    Returns:
        Three values each, or ``None`` where timm does not know the model.

    Raises:
        UserError: timm knows the model, and no weights of that tag.
    """
    if timm.is_model(timm_name):
        refuse_unknown(timm_name)
    config = get_pretrained_cfg(timm_name)
    if config is None:
        return None
    return {"mean": list(config.mean), "std": list(config.std)}
