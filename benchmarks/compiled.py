"""What torch.compile makes of a training: graphs, graph breaks, differences to eager, seconds.

    python benchmarks/compiled.py [--only HEAD ...] [--everything] [--side 256] [--rounds 6]
        [--threads 2] [--compiler inductor] [--others] [--device cpu] [--size small] [--batch 2]

Per head, on a ViT-S/16 of DINOv3 with random weights and LoRA, batch 2, float32 (on CUDA bfloat16,
as the trainer has it): a step as the
trainer takes it (the network compiled whole and nnU-Net's Dice apart, as nnU-Net does), an online
validation, a tile of the final one, and with ``--others`` tiles of other sizes and batches. With
``--everything`` also drop path, both gradient checkpointings, auxiliary outputs where a head has
them, and a moving average. Random numbers are eager's (inductor's fallback_random), so that both
can be compared.

Graphs are counted by a compiler that counts its calls; steps of the eager and the compiled network
alternate, medians and quartiles of each round's ratio.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Before torch is imported: what an earlier run has compiled would not be compiled again.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled_")

import torch
import torch._inductor.config
from head_costs import adamw
from heads import HEADS
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn
from torch._dynamo.utils import counters

from nnunet_vit_trainer.training.averaging import WeightAverage
from nnunet_vit_trainer.training.step import (
    deep_supervision_weights,
    resolve_amp_dtype,
    training_step,
)
from vit_backbone import UserError, ViTSegmentationModel, find_head
from vit_backbone.heads.recompute import set_recompute
from vit_backbone.testing.tools import wake

CLASSES = 3
DEEP = ("segformer", "unetr")
OTHER_TILES = ((0, 0), (16, 0), (48, 64), (5, 30), (81, 81), (9, 26), (100, 7))
"""Added to the tile's sides: whole patches and not, square and not."""


def build(head: str, arguments: argparse.Namespace) -> ViTSegmentationModel:
    """Build a head whose closed gates and adapters are woken, so that all of it has gradients."""
    everything, depth = arguments.everything, arguments.depth
    name, options = HEADS[head]
    if everything and name in DEEP:
        options = options | {"auxiliary_outputs": True}
    torch.manual_seed(0)
    model = find_head(name)(
        *("dinov3", arguments.size),
        num_classes=CLASSES,
        pretrained=False,
        lora_dropout=0.05 if everything else 0.0,
        backbone_options={
            "drop_path_rate": 0.1 if everything else 0.0,
            "input_norm": {"mean": [0.4] * 3, "std": [0.2] * 3},
        },
        **options,
    )
    if depth:
        del model.backbone.blocks[depth:]
        model.indices = None
    wake(model)
    if everything:
        model.backbone.set_grad_checkpointing(True)
        with suppress(UserError):  # a head without it
            set_recompute(model.head)
        model.head.deep_supervision = name in DEEP
    return model.to(arguments.device).train()


class Run:
    """A training's parts, eager or compiled.

    Args:
        model: to train.
        compiler: for `torch.compile`; ``None`` is eager.
    """

    def __init__(self, model: ViTSegmentationModel, compiler: Any = None) -> None:
        self.model, self.network = model, model
        dice_options = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
        loss = DC_and_CE_loss(dice_options, {}, dice_class=MemoryEfficientSoftDiceLoss)
        if compiler is not None:
            self.network = torch.compile(model, backend=compiler)
            loss.dc = torch.compile(loss.dc)
        self.loss: nn.Module = loss
        if getattr(model.head, "deep_supervision", False):
            outputs = len(model.head.deep_supervision_scales)
            self.loss = DeepSupervisionWrapper(loss, deep_supervision_weights(outputs))
        self.optimizer = adamw(model)
        self.average = WeightAverage(model, 0.99)

    def step(self, image: torch.Tensor, target: Any, seed: int) -> float:
        """Take a step, and return the loss before it."""
        torch.manual_seed(seed)
        amp_dtype = resolve_amp_dtype("auto", image.device.type)
        recipe = {"gradient_clip": 12.0, "amp_dtype": amp_dtype}
        outcome = training_step(
            self.network, self.loss, self.optimizer, [(image, target)], **recipe
        )
        self.average.update()
        return outcome.read()[0]

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients of the last step."""
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    @torch.no_grad()
    def validate(self, image: torch.Tensor, target: Any) -> Any:
        """Validate as nnU-Net does between epochs, on the moving average."""
        self.network.eval()
        self.average.swap()
        with autocast(image.device):
            outputs = self.network(image)
            self.loss(outputs, target)
        self.average.swap()
        self.network.train()
        return outputs

    @torch.inference_mode()
    def predict(self, image: torch.Tensor) -> torch.Tensor:
        """Predict a tile as nnU-Net's final validation does."""
        self.network.eval()
        deep = getattr(self.model.head, "deep_supervision", False)
        if deep:
            self.model.head.deep_supervision = False
        with autocast(image.device):
            logits = self.network(image)
        if deep:
            self.model.head.deep_supervision = True
        return logits


def autocast(device: torch.device) -> torch.autocast:
    """Compute as nnU-Net validates and predicts: in float16 on CUDA."""
    return torch.autocast(device.type, torch.float16, enabled=device.type == "cuda")


def batch_of(
    model: ViTSegmentationModel, batch: int, side: int, device: torch.device
) -> tuple[torch.Tensor, Any]:
    """Make an image and its target, or one per output."""
    image = torch.rand(batch, 3, side, side, device=device)
    target = torch.randint(0, CLASSES, (batch, 1, side, side), device=device).float()
    if not getattr(model.head, "deep_supervision", False):
        return image, target
    sizes = [max(1, round(side * scale)) for scale in model.head.deep_supervision_scales]
    return image, [nn.functional.interpolate(target, size) for size in sizes]


def difference(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Return the largest difference, as a share of the largest value of its tensor."""
    pairs = zip(got, expected, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item() for a, b in pairs)


def as_list(outputs: Any) -> list[torch.Tensor]:
    """Return one output, or several, as a list."""
    return outputs if isinstance(outputs, list) else [outputs]


class Counting:
    """A compiler that counts the graphs that it is given: what `torch.compile` compiles anew."""

    def __init__(self, name: str) -> None:
        self.compile = torch._dynamo.lookup_backend(name)
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any, **options: Any) -> Callable[..., Any]:
        """Compile a graph."""
        self.graphs += 1
        return self.compile(graph, inputs, **options)


@contextmanager
def noted(compiler: Counting, name: str, notes: dict[str, tuple[int, float]]) -> Iterator[None]:
    """Note how many graphs something compiled, and the seconds that it took."""
    graphs, start = compiler.graphs, time.perf_counter()
    yield
    notes[name] = (compiler.graphs - graphs, time.perf_counter() - start)


def compare(head: str, arguments: argparse.Namespace) -> str:
    """Train and predict in turn, eager and compiled, and return the head's row."""
    torch.compiler.reset()
    counters.clear()
    compiler = Counting(arguments.compiler)
    device, batch = arguments.device, arguments.batch
    models = [build(head, arguments) for _ in range(2)]
    eager, compiled = Run(models[0]), Run(models[1], compiler)
    side = arguments.side
    image, target = batch_of(models[0], batch, side, device)
    notes: dict[str, tuple[int, float]] = {}
    with noted(compiler, "step", notes):
        losses = [torch.tensor(compiled.step(image, target, 0))]
    expected = [torch.tensor(eager.step(image, target, 0))]
    of_gradients = difference(compiled.gradients(), eager.gradients())
    of_loss = difference(losses, expected)
    models[1].load_state_dict(models[0].state_dict())
    with noted(compiler, "validation", notes):
        outputs = as_list(compiled.validate(image, target))
    assert all(output.isfinite().all() for output in outputs)
    for _ in range(2):  # from the second on nothing is new
        with noted(compiler, "again", notes):
            compiled.step(image, target, 1)
            compiled.validate(image, target)
        assert notes["again"][0] == 0, "compiled again"
    models[1].load_state_dict(models[0].state_dict())
    tile = torch.rand(1, 3, side, side, device=device)
    with noted(compiler, "tile", notes):
        of_outputs = of_prediction(compiled, eager, tile)
    steps = alternated(lambda run: run.step(image, target, 2), eager, compiled, arguments.rounds)
    tiles = alternated(lambda run: run.predict(tile), eager, compiled, arguments.rounds)
    models[1].load_state_dict(models[0].state_dict())
    with noted(compiler, "others", notes):
        for rows, columns in OTHER_TILES if arguments.others else ():
            for size in (batch, 3, 4):
                other = torch.rand(size, 3, side + rows, side + columns, device=device)
                of_outputs = max(of_outputs, of_prediction(compiled, eager, other))
    graphs = " + ".join(str(notes[name][0]) for name in ("step", "validation", "tile", "others"))
    seconds = " / ".join(f"{notes[name][1]:.0f}" for name in ("step", "validation", "tile"))
    return (
        f"| {head} | {graphs} | {sum(counters['graph_break'].values())} | {of_loss:.0e} / "
        f"{of_gradients:.0e} / {of_outputs:.0e} | {steps} | {tiles} | {seconds} |"
    )


def of_prediction(compiled: Run, eager: Run, image: torch.Tensor) -> float:
    """Return the difference of two predictions."""
    return difference([compiled.predict(image)], [eager.predict(image)])


def alternated(call: Callable[[Run], object], eager: Run, compiled: Run, rounds: int) -> str:
    """Call for both in turn; return medians in seconds, and eager's over compiled's."""
    times: dict[Run, list[float]] = {eager: [], compiled: []}
    for run in (eager, compiled):
        run.network.train()
    for turn in range(rounds + 1):
        for run, taken in times.items():
            run.network.train()
            start = now()
            call(run)
            if turn:  # the first round warms up
                taken.append(now() - start)
    ratios = [a / b for a, b in zip(times[eager], times[compiled], strict=True)]
    low, middle, high = statistics.quantiles(ratios)
    eager_s, compiled_s = (statistics.median(taken) for taken in times.values())
    return f"{eager_s:.4f} / {compiled_s:.4f} = {middle:.2f} ({low:.2f} to {high:.2f})"


def now() -> float:
    """Read the clock, after what CUDA still computes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main(arguments: argparse.Namespace) -> None:
    """Print a row per head."""
    torch.set_num_threads(arguments.threads)
    torch._inductor.config.fallback_random = True
    print("| head | graphs: step + validation + tile + others | graph breaks | difference: loss / ")
    print("gradients / logits | step s: eager / compiled | tile s | compile s: step, val., tile |")
    print("|---|---|---|---|---|---|---|")
    for head in arguments.only:
        print(compare(head, arguments), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--depth", type=int, default=0, help="blocks; 0 is all of them")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compiler", default="inductor")
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--size", default="small", help="of the ViT, or base, large")
    parser.add_argument("--batch", type=int, default=2)
    main(parser.parse_args())
