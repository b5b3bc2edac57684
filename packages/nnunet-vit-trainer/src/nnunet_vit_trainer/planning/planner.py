"""nnU-Net's planner with a ViT's 2D configuration.

nnU-Net looks planners up inside of its own package alone, so that its command cannot be given this
one by ``-pl``; ours makes it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunet_vit_trainer.launch.claim import write_json

Adapt = Callable[[dict[str, Any], float], dict[str, Any]]


class ViTPlanner(ExperimentPlanner):
    """Plan as nnU-Net does, but the 2D configuration through a function, and no 3D ones.

    Args:
        dataset_name: whose fingerprint is extracted.
        plans_name: of the plans to write.
        adapt: makes of nnU-Net's own 2D configuration, and of the pixels of the whole data set in
            its spacing, the ViT's.
        finish: makes of nnU-Net's plans with that what is written.
    """

    def __init__(
        self,
        dataset_name: str,
        plans_name: str,
        adapt: Adapt,
        finish: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        super().__init__(dataset_name, plans_name=plans_name)
        self.adapt = adapt
        self.finish = finish

    def get_plans_for_configuration(
        self,
        spacing: Any,
        median_shape: Any,
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any],
    ) -> dict[str, Any]:
        """Plan the 2D configuration; a 3D one is left out, so it costs no search."""
        if len(spacing) == 3:
            return {"spacing": spacing, "patch_size": median_shape}
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        return self.adapt(plan, approximate_n_voxels_dataset)

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Write the plans, whole or not at all."""
        plans["configurations"] = {"2d": plans["configurations"]["2d"]}
        recursive_fix_for_json_export(plans)
        file = Path(nnUNet_preprocessed, self.dataset_name, f"{self.plans_identifier}.json")
        write_json(self.finish(plans), file)
