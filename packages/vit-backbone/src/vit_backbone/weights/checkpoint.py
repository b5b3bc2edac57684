"""What a weight file holds, under the one naming of `layouts`."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Joined(NamedTuple):
    """A matrix of a backbone that a file holds in parts, such as q, k and v.

    Joined one by one, while a backbone is filled, they take no memory to speak of; all of a
    backbone's at once are a quarter of it.
    """

    parts: tuple[torch.Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        """The parts' rows together, and their columns."""
        return torch.Size((sum(len(part) for part in self.parts), *self.parts[0].shape[1:]))


Tensors = dict[str, torch.Tensor | Joined]


def parts_of(value: torch.Tensor | Joined) -> tuple[torch.Tensor, ...]:
    """Return the tensors that a file holds for one of a backbone."""
    return value.parts if isinstance(value, Joined) else (value,)


def as_tensor(value: torch.Tensor | Joined) -> torch.Tensor:
    """Return one tensor, joined if need be."""
    return torch.cat(value.parts) if isinstance(value, Joined) else value


# What plain ViTs have not: tokens, norms, scales, rotary position embeddings.
_MORE = re.compile(
    r"dist_token|reg_token|norm_pre\.|rope\.|blocks\.\d+\.(ls1|gamma_1|attn\.(q_)?norm)\b"
)


def tensor_of(tensors: Tensors, name: str) -> torch.Tensor | None:
    """Return the tensor of a name, or ``None`` where there is none."""
    return as_tensor(tensors[name]) if name in tensors else None


@dataclass(frozen=True)
class Checkpoint:
    """A backbone's tensors as a file holds them, under the one naming.

    Attributes:
        layout: what the file is, for messages.
        tensors: the backbone's tensors.
        dropped: how many pretraining, classification or other models' tensors were left out.
        licence: of the release that has this layout, where known.
        periods: of the rotary position embedding that the file's model had; ``None`` if unsaid.
        notes: what was chosen on the way.
    """

    layout: str
    tensors: Tensors
    dropped: int
    licence: str | None
    periods: torch.Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Number of blocks."""
        numbers = (re.match(r"blocks\.(\d+)\.", name) for name in self.tensors)
        return len({match[1] for match in numbers if match})

    @property
    def embed_dim(self) -> int | None:
        """Width of a token, read off the patch embedding; ``None`` without one."""
        weight = tensor_of(self.tensors, "patch_embed.proj.weight")
        return None if weight is None or not weight.ndim else weight.shape[0]

    @property
    def patch_size(self) -> int | None:
        """Side of a patch in pixels; ``None`` without a patch embedding."""
        weight = tensor_of(self.tensors, "patch_embed.proj.weight")
        return None if weight is None or weight.ndim != 4 else weight.shape[-1]

    @property
    def in_chans(self) -> int | None:
        """Channels of the images it was trained on; ``None`` without a patch embedding."""
        weight = tensor_of(self.tensors, "patch_embed.proj.weight")
        return None if weight is None or weight.ndim != 4 else weight.shape[1]

    @property
    def grid(self) -> int | None:
        """Side of the position embedding's grid; ``None`` without one or where it is not square."""
        embedding = tensor_of(self.tensors, "pos_embed")
        if embedding is None or embedding.ndim != 3:
            return None
        # Without a second token of that name: 1 and a grid, or a grid alone.
        for prefix in (2,) if "dist_token" in self.tensors else (1, 0):
            side = round(max(0, embedding.shape[1] - prefix) ** 0.5)
            if side and side**2 == embedding.shape[1] - prefix:
                return side
        return None

    @property
    def registers(self) -> int:
        """Number of register tokens."""
        tokens = tensor_of(self.tensors, "reg_token")
        return 0 if tokens is None or tokens.ndim != 3 else tokens.shape[1]

    @property
    def is_plain(self) -> bool:
        """Whether it has what the plainest ViTs have, one class token, and nothing beside."""
        embedding, grid = tensor_of(self.tensors, "pos_embed"), self.grid
        if embedding is None or grid is None or embedding.shape[1] != grid**2 + 1:
            return False
        return "cls_token" in self.tensors and not any(map(_MORE.match, self.tensors))

    @property
    def has_layer_scale(self) -> bool:
        """Whether the blocks scale what they add."""
        return "blocks.0.ls1.gamma" in self.tensors

    @property
    def has_qkv_bias(self) -> bool:
        """Whether q and v have biases: named apart as timm does, or not all zero.

        Official DINOv3 files carry biases of zeros for models without any; k's is masked there.
        """
        for name, value in self.tensors.items():
            if name.endswith((".attn.q_bias", ".attn.v_bias")):
                return True
            if name.endswith(".attn.qkv.bias") and as_tensor(value).ndim == 1:
                q, _, v = as_tensor(value).tensor_split(3)
                if q.count_nonzero() or v.count_nonzero():
                    return True
        return False

    def describe(self) -> str:
        """Say what the file is: ``a ViT-B/16 (12 blocks, 768 wide) in DINOv3 layout``."""
        letter = {384: "S", 768: "B", 1024: "L", 1280: "H+", 1536: "g", 4096: "7B"}
        name = f"ViT-{letter.get(self.embed_dim, '?')}/{self.patch_size or '?'}"
        return f"a {name} ({self.depth} blocks, {self.embed_dim} wide) in {self.layout} layout"
