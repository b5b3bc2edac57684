"""The options of the SegFormer head: their values, and what is refused. No torch here."""

from numbers import Real

from vit_backbone.errors import UserError, check_count

NORMS = ("group", "batch")
NECKS = ("none", "pyramid")
UPSAMPLES = ("bilinear", "deconv")
# From each output of deep supervision to the next: full size, the patch grid.
DEEP_SUPERVISION_STRIDES = (1, 16)


def check_options(
    hidden_size: int = 256,
    dropout: float = 0.1,
    norm: str = "group",
    neck: str = "none",
    upsample: str = "bilinear",
    shortcut: bool = False,
    image_stem: bool = False,
) -> None:
    """Refuse values that no SegFormer head can be built with.

    Raises:
        UserError: a hidden size below 1, a dropout outside of 0 to below 1, or a name not listed.
    """
    check_count("hidden_size", hidden_size)
    if not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise UserError(f"dropout {dropout!r}: it must be at least 0 and below 1")
    named = (("norm", norm, NORMS), ("neck", neck, NECKS), ("upsample", upsample, UPSAMPLES))
    for name, value, known in named:
        if value not in known:
            raise UserError(f"{name} {value!r}: there is {', '.join(known)}")
