"""What stops a run that trains nothing, or nonsense, and says when it no longer gets better."""

import math
from collections.abc import Sequence

from torch import nn

from vit_backbone import UserError

# In a row. Float16's loss scale starts too high and skips a few steps at the start.
MAX_SKIPPED_STEPS = 20
# The Dice has moved if it rose by this. A tenth of the epochs is two of the warm-ups.
MOVED = 0.001
_PATIENCE_SHARE, _LEAST_PATIENCE = 10, 10


class StepWatch:
    """Count steps that were not taken, and stop after too many in a row.

    Attributes:
        skipped: steps that were not taken in the whole run.
        in_a_row: of them, the last ones without a good one between.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.in_a_row = 0

    def count(self, taken: bool, remedy: str) -> None:
        """Note one step.

        Args:
            taken: whether the loss and the gradient were finite.
            remedy: what the message ends with.

        Raises:
            UserError: `MAX_SKIPPED_STEPS` steps in a row were not taken.
        """
        self.in_a_row = 0 if taken else self.in_a_row + 1
        self.skipped += not taken
        if self.in_a_row >= MAX_SKIPPED_STEPS:
            raise UserError(
                f"the loss or a gradient was not finite in {self.in_a_row} steps in a row; {remedy}"
            )


def refuse_idle_lora(network: nn.Module) -> None:
    """Refuse adapters that the backward pass did not reach: they would never train.

    Args:
        network: after its first backward pass.

    Raises:
        UserError: naming some of them.
    """
    lora = {n: p for n, p in network.named_parameters() if ".lora_" in n and p.requires_grad}
    idle = [name for name, parameter in lora.items() if parameter.grad is None]
    if idle:
        raise UserError(
            f"{len(idle)} of {len(lora)} LoRA tensors got no gradient in the first step, "
            f"{idle[0]} among them: this backbone does not call the layers that "
            "lora.target_modules names; choose others, or model.tune: full"
        )


def plateau_hint(dice: Sequence[float], num_epochs: int) -> str | None:
    """Say that the validation Dice does not move any more, at most once in so many epochs.

    It has not moved when its best of the last N epochs is not `MOVED` above its best before. N is a
    tenth of all epochs, at least 10.

    Args:
        dice: nnU-Net's moving average after each epoch, 0 to 1, or NaN.
        num_epochs: planned.
    """
    patience = max(_LEAST_PATIENCE, num_epochs // _PATIENCE_SHARE)
    if not dice or len(dice) % patience or len(dice) == patience:
        return None
    known = [0.0 if math.isnan(value) else value for value in dice]
    before, since = max(known[:-patience]), max(known[-patience:])
    if since >= before + MOVED:
        return None
    return (
        f"The validation Dice has not risen by {MOVED} in {patience} epochs (best moving average: "
        f"{max(before, since):.4f}). This run can be ended early, with checkpoint_final and the "
        "validation: see train.stop_file in docs/recipe.md"
    )
