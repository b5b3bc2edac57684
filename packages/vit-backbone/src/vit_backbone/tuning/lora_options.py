"""What LoRA's options may be. No peft here: they are checked before anything is built."""

import math
from collections.abc import Sequence

from vit_backbone.errors import UserError, check_count, check_flag, is_number


def check_lora_options(
    rank: int,
    lora_alpha: float,
    lora_dropout: float,
    target_modules: Sequence[str] | None,
    *,
    use_dora: bool = False,
    use_rslora: bool = False,
) -> None:
    """Refuse options that no adapter can be built, or trained, with.

    Args:
        rank: see `vit_backbone.enable_lora`, as for the next five.
        lora_alpha: see there.
        lora_dropout: see there.
        target_modules: see there.
        use_dora: see there.
        use_rslora: see there.

    Raises:
        UserError: a rank below 1, an alpha that is not above 0, a dropout outside of 0 to below 1,
            targets that are not a list of names, or no truth value where one is asked.
    """
    check_flag("use_dora", use_dora)
    check_flag("use_rslora", use_rslora)
    check_count("LoRA rank", rank)
    if not is_number(lora_alpha) or not 0 < lora_alpha < math.inf:
        raise UserError(f"lora_alpha {lora_alpha!r}: it must be above 0")
    if not is_number(lora_dropout) or not 0 <= lora_dropout < 1:
        raise UserError(f"lora_dropout {lora_dropout!r}: it must be at least 0 and below 1")
    if isinstance(target_modules, str):
        raise UserError(
            f"LoRA target_modules {target_modules!r} is one string; give a list: "
            f"{[target_modules]!r}"
        )
    if target_modules is None:
        return
    if not isinstance(target_modules, Sequence) or not all(
        isinstance(name, str) for name in target_modules
    ):
        raise UserError(f"LoRA target_modules {target_modules!r}: a list of names is expected")
    if not target_modules:
        raise UserError("LoRA target_modules is empty; leave it away for ['qkv']")
