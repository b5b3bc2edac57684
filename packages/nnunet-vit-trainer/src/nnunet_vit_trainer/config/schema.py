"""The schema of a config: model, lora, train. `reading` reads and checks a file by it.

No torch here. Below this edge there are no config objects, only flat keyword arguments.
docs/configuration.md is made of these docstrings.
"""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

# The upper ends are far beyond what helps: they stop a slip of the pen before it fills a memory.
Rate = Annotated[float, Field(gt=0, le=1e3)]
From0Below1 = Annotated[float, Field(ge=0, lt=1)]
Rank = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOr0 = Annotated[int, Field(ge=0, le=1_000_000)]
Batches = Annotated[int, Field(ge=1, le=65_536)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Pixels = Annotated[int, Field(ge=1, le=8192)]
Block = Annotated[int, Field(ge=-1000, le=1000)]
Statistic = Annotated[float, Field(ge=-1e9, le=1e9)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(config=ConfigDict(extra="allow"))
class DecoderConfig:
    """The options of the head that ``model_path`` names, as attributes.

    Their names and types are the head's own: the explicit parameters of its factory beyond the
    standard ones. `options` returns them as a dict.
    """

    def options(self) -> dict[str, Any]:
        """Return the options that were given."""
        return dict(vars(self))


@dataclass(config=_STRICT)
class ViTModelConfig:
    """What the network is.

    Attributes:
        model_path: an installed head, or a module with ``create_segmentation_model``.
        backbone: a family (dinov3, dinov2, retfound, visionfm), or a timm ViT's name.
        backbone_size: a size of the family; ``None`` is its default.
        checkpoint_path: local weight file (.safetensors, .pth) or folder; empty means none. It wins
            over ``pretrained``.
        pretrained: ``None`` is the family's released weights, ``False`` random initialisation.
        patch_size: side of a patch in pixels that the patch embedding is resampled to, 1 to 256;
            ``None`` is the backbone's own. A patch-14 backbone takes 16, too.
        layer_indices: the four blocks that the head taps: a list, a preset's name, or ``None``
            for the last block of each quarter.
        input_norm: what the network does to nnU-Net's normalised channels: ``auto`` (nothing to
            z-scored ones, the backbone's own mean and std to those in [0, 1]), ``none``, other
            statistics by name, or ``{mean: [...], std: [...]}``.
        probability_resampling: how predictions get the images' size: ``torch``, by nnU-Net's
            function for it, or ``plans``, by the one that the data set's plans name.
        tune: what of the backbone trains: ``lora``, ``frozen``, ``full``, ``last_N`` (the last N
            blocks); it wins over ``lora.enabled``, which decides where it is ``None``.
        decoder: the head's options.
    """

    model_path: str = "unetr"
    backbone: str = "dinov3"
    backbone_size: str | None = None
    checkpoint_path: str = ""
    pretrained: bool | None = None
    patch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    layer_indices: Annotated[list[Block], Field(min_length=4, max_length=4)] | str | None = None
    input_norm: str | dict[str, list[Statistic]] = "auto"
    probability_resampling: Literal["torch", "plans"] = "torch"
    tune: Annotated[str, Field(pattern=r"^(lora|frozen|full|last_[1-9]\d{0,2})$")] | None = None
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(config=_STRICT)
class ViTLoRAConfig:
    """How the backbone is tuned; with ``enabled: false`` all of it trains.

    Attributes:
        enabled: whether LoRA is used.
        r: rank, 1 to 4096.
        lora_alpha: the update is scaled by lora_alpha / r; above 0, at most 1e6.
        target_modules: last names of linear layers inside the blocks.
        lora_dropout: 0 to below 1.
        dora: learn magnitude and direction apart (DoRA).
        rslora: scale by lora_alpha / sqrt(r) (rsLoRA).
    """

    enabled: bool = True
    r: Rank = 8
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    target_modules: Annotated[list[str], Field(min_length=1)] = field(
        default_factory=lambda: ["qkv"]
    )
    lora_dropout: From0Below1 = 0.05
    dora: bool = False
    rslora: bool = False


@dataclass(config=_STRICT)
class ViTTrainConfig:
    """How it is trained; docs/recipe.md says where each default comes from.

    Rates and their scales are at most 1000, numbers of epochs and iterations at most a million.

    Attributes:
        optimizer: ``adamw``, or nnU-Net's ``sgd`` (Nesterov momentum 0.99).
        initial_lr: the head's learning rate at the start, above 0.
        backbone_lr: that of everything in the backbone that trains; excludes the next.
        backbone_lr_scale: the same as a share of ``initial_lr``; ``None`` is 1 for LoRA's adapters
            and for a backbone that was not pretrained, 0.1 for pretrained weights.
        layer_decay: of the rate from each block to the one before it, above 0, at most 1.
        betas: of AdamW.
        weight_decay: 0 to 1000; norms, biases, LayerScale, position embedding and tokens get none.
        gradient_clip: largest norm of the gradient, above 0, at most 1e12 (which is none).
        warmup_epochs: of linear increase; ``None`` is a twentieth of ``num_epochs``.
        lr_schedule: ``poly`` (nnU-Net's) or ``cosine``.
        head_first_epochs: epochs in which the head trains alone.
        drop_path_rate: stochastic depth of the backbone's blocks, 0 to below 1.
        ema: decay per step of the weights' moving average, which validates and predicts then;
            0 is none.
        amp_dtype: precision of the network: ``auto`` is bfloat16 on CUDA (float16 where the
            device lacks it) and float32 elsewhere.
        grad_checkpointing: compute the blocks twice and keep less.
        grad_checkpointing_head: keep of the head what its convolutions answer, and compute the rest
            anew; refused for a head that has no use for it.
        accumulate_steps: batches per optimizer step, at most 65536; an iteration is one such step.
        num_epochs: at least 1.
        num_iterations_per_epoch: training steps per epoch, at least 1.
        num_val_iterations_per_epoch: online validation steps per epoch, at least 1.
        save_every: epochs between two writes of checkpoint_latest.
        checkpoint: what checkpoint_latest and checkpoint_best hold: ``full``, or ``adapter``, which
            is only what was trained (checkpoint_final is always whole).
        stop_file: when this file appears, the run ends after the epoch as a finished one does, with
            checkpoint_final and the validation. A relative path is below the fold's results; empty
            is none.
        seed: of all random numbers (weights, order, augmentation, dropout), 0 to 2**32 - 1; two
            runs on one CPU with one data worker are then equal bit for bit. ``None``: never twice
            the same.
        batch_dice: whether the loss takes one Dice of the whole batch, or (``false``) the mean of
            its samples' Dice; ``auto`` is ``false`` where each case is one image and as nnU-Net
            planned elsewhere, ``None`` always as planned.
        batch_size: at most 65536; ``None`` is the plans' own.
        patch_size: [height, width] in pixels, each at most 8192; ``None`` is the plans' own.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    initial_lr: Rate = 1e-3
    backbone_lr: Rate | None = None
    backbone_lr_scale: Rate | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    betas: Annotated[list[From0Below1], Field(min_length=2, max_length=2)] = field(
        default_factory=lambda: [0.9, 0.98]
    )
    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 1e-4
    gradient_clip: Annotated[float, Field(gt=0, le=1e12)] = 12.0
    warmup_epochs: CountOr0 | None = None
    lr_schedule: Literal["poly", "cosine"] = "poly"
    head_first_epochs: CountOr0 = 0
    drop_path_rate: From0Below1 = 0.0
    ema: From0Below1 = 0.0
    amp_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    grad_checkpointing: bool = False
    grad_checkpointing_head: bool = False
    accumulate_steps: Batches = 1
    num_epochs: Count = 1000
    num_iterations_per_epoch: Count = 250
    num_val_iterations_per_epoch: Count = 50
    save_every: Count = 50
    checkpoint: Literal["full", "adapter"] = "full"
    stop_file: Annotated[str, Field(max_length=4096)] = ""
    seed: Seed | None = None
    batch_dice: bool | Literal["auto"] | None = "auto"
    batch_size: Batches | None = None
    patch_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None


@dataclass(config=_STRICT)
class ViTnnUNetConfig:
    """The whole config: model, lora, train. Every section and key has a default."""

    model: ViTModelConfig = field(default_factory=ViTModelConfig)
    lora: ViTLoRAConfig = field(default_factory=ViTLoRAConfig)
    train: ViTTrainConfig = field(default_factory=ViTTrainConfig)

    @property
    def tune(self) -> str:
        """What of the backbone trains: ``lora``, ``frozen``, ``full`` or ``last_N``."""
        return self.model.tune or ("lora" if self.lora.enabled else "full")
