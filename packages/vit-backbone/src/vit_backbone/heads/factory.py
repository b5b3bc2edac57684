"""Turn a function that builds a head into the factory that every head offers.

No torch here, nor in a decorated function until it is called.
"""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, cast

from vit_backbone.errors import check_count, check_flag

if TYPE_CHECKING:
    from torch import nn

    from vit_backbone.segmentation.model import ViTSegmentationModel
    from vit_backbone.vits.plain import PlainViT

Options = ParamSpec("Options")

_MADE_OF = ("backbone", "num_classes")


def standard_factory(
    backbone_name: str = "dinov3",
    backbone_size: str | None = None,
    num_classes: int = 1,
    checkpoint_path: str | Path | None = None,
    freeze_backbone: bool = False,
    use_lora: bool = True,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    lora_target_modules: Sequence[str] | None = None,
    *,
    pretrained: bool | None = None,
    in_channels: int = 3,
    backbone_options: Mapping[str, Any] | None = None,
    make_head: Callable[["PlainViT", int], "nn.Module"],
) -> "ViTSegmentationModel":
    """Build a model from a backbone and the head that ``make_head`` gives: logits of image size.

    Args:
        backbone_name: a family (dinov3, dinov2, retfound, visionfm) or a timm ViT's name.
        backbone_size: a size of the family; ``None`` is its default.
        num_classes: number of output channels, at least 1.
        checkpoint_path: a local weight file; it wins over ``pretrained``.
        freeze_backbone: train the head alone; it wins over ``use_lora``.
        use_lora: tune the backbone by LoRA; its own weights are then frozen in any case.
        lora_rank: rank of the LoRA update.
        lora_alpha: the update is scaled by lora_alpha / lora_rank.
        lora_dropout: dropout before the adapters, 0 to below 1.
        lora_target_modules: names of linear layers in the blocks; ``None`` is ``["qkv"]``.
        pretrained: ``None`` is the family's released weights, ``False`` random initialisation.
        in_channels: number of input channels, at least 1.
        backbone_options: the rarer ones; see `vit_backbone.build_segmentation_model`.
        make_head: of the backbone and ``num_classes``, a head or the whole model.

    Raises:
        UserError: an impossible backbone, size, number of classes or LoRA target.
        WeightsError: weights that are missing or do not fill the backbone.
    """
    from vit_backbone.segmentation.building import build_segmentation_model
    from vit_backbone.segmentation.model import ViTSegmentationModel

    check_count("num_classes", num_classes)

    def make_model(backbone: "PlainViT") -> ViTSegmentationModel:
        head = make_head(backbone, num_classes)
        if isinstance(head, ViTSegmentationModel):
            return head
        return ViTSegmentationModel(backbone, head)

    return build_segmentation_model(
        make_model,
        backbone_name=backbone_name,
        backbone_size=backbone_size,
        checkpoint_path=checkpoint_path,
        freeze_backbone=freeze_backbone,
        use_lora=use_lora,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
        pretrained=pretrained,
        in_channels=in_channels,
        backbone_options=backbone_options,
    )


_STANDARD = inspect.signature(standard_factory)


class HeadFactory(Protocol[Options]):
    """What type checkers know of a head's factory: `standard_factory`'s arguments and its options.

    They let the last three of the former be given by place too, which the factory refuses.
    """

    def __call__(
        self,
        backbone_name: str = "dinov3",
        backbone_size: str | None = None,
        num_classes: int = 1,
        checkpoint_path: str | Path | None = None,
        freeze_backbone: bool = False,
        use_lora: bool = True,
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.05,
        lora_target_modules: Sequence[str] | None = None,
        pretrained: bool | None = None,
        in_channels: int = 3,
        backbone_options: Mapping[str, Any] | None = None,
        *_: Options.args,
        **options: Options.kwargs,
    ) -> "ViTSegmentationModel":
        """Build a model."""
        ...


def head_factory(
    make_head: Callable[Concatenate["PlainViT", int, Options], "nn.Module"],
) -> HeadFactory[Options]:
    """Decorate ``make_head(backbone, num_classes, *, options…)`` into a head's factory.

    The factory takes the arguments of `standard_factory`, by name or in their order, and the
    head's options by name. A function ``check_options`` of the same module is called with the
    options before anything is built, and what is annotated as ``bool`` is to be one; unknown
    options are warned about and ignored.

    Args:
        make_head: returns the head, or a whole `ViTSegmentationModel` with it. Its keyword-only
            parameters are the options, with a default and a type each; ``auxiliary_outputs``
            among them says that the head has deep supervision.

    Raises:
        TypeError: a function of another form; it is said where the head is defined.
    """
    options = _options_of(make_head)
    flags = [name for name, option in options.items() if option.annotation in (bool, "bool")]
    unknown = inspect.Parameter("unknown", inspect.Parameter.VAR_KEYWORD)
    standard = [p for name, p in _STANDARD.parameters.items() if name != "make_head"]
    signature = _STANDARD.replace(parameters=[*standard, *options.values(), unknown])

    @functools.wraps(make_head)
    def factory(*arguments: Any, **named: Any) -> "ViTSegmentationModel":
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        given = dict(bound.arguments)
        if ignored := given.pop("unknown"):
            warnings.warn(
                f"{make_head.__module__} ignores unknown options {sorted(ignored)}", stacklevel=2
            )
        values = {name: given.pop(name) for name in options}
        for name in flags:
            check_flag(name, values[name])
        check = beside(make_head, "check_options")
        if check is not None:
            check(**{name: v for name, v in values.items() if name != "auxiliary_outputs"})
        return standard_factory(**given, make_head=functools.partial(make_head, **values))

    made: Any = factory
    made.__signature__ = signature
    return cast("HeadFactory[Options]", made)  # with that signature


def beside(function: Callable[..., Any], name: str, default: Any = None) -> Any:
    """Return what a function's module has under a name.

    Args:
        function: a head's factory, or what it is made of.
        name: in the module.
        default: where the module has none.
    """
    module = sys.modules.get(function.__module__)
    if module is None:  # made of a file by hand, and registered nowhere
        return getattr(inspect.unwrap(function), "__globals__", {}).get(name, default)
    return getattr(module, name, default)


def _options_of(make_head: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the options of a head's function, or say what is wrong with its form."""
    parameters = inspect.signature(make_head).parameters
    options = {name: p for name, p in parameters.items() if name not in _MADE_OF}
    of_other_kind = [n for n, p in options.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    without_default = [n for n, p in options.items() if p.default is inspect.Parameter.empty]
    standard = sorted(options.keys() & _STANDARD.parameters.keys())
    where = f"{make_head.__module__}.{getattr(make_head, '__qualname__', make_head)}"
    if tuple(parameters)[:2] != _MADE_OF or of_other_kind:
        raise TypeError(f"{where}: (backbone, num_classes, *, options...) is expected")
    if without_default:
        raise TypeError(f"{where}: the options {without_default} need defaults")
    if standard:
        raise TypeError(f"{where}: {standard} are arguments of every head, not options")
    return options
