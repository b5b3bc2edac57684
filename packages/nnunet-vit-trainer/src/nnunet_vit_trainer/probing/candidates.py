"""The backbones to try: weight files, folders of them, and names of released weights."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_vit_trainer.config.schema import ViTModelConfig
from vit_backbone import MODEL_CONFIGS, UserError, read_checkpoint, shorten
from vit_backbone.vits.families import likely_backbone

_WEIGHTS = {".safetensors", ".pth", ".pt", ".bin"}
_OF_A_MODEL = (
    "config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""What a folder of several weight files has not."""


@dataclass(frozen=True)
class Candidate:
    """A backbone to try.

    Attributes:
        name: to show.
        backbone: a family or a timm name; empty where the file is to tell.
        size: of the family.
        file: of its weights; ``None`` is the released ones, or none.
        random: whether its weights are random.
    """

    name: str
    backbone: str = ""
    size: str | None = None
    file: Path | None = None
    random: bool = False

    def model(self) -> ViTModelConfig:
        """Say it as a config does; of a file that is to tell, this reads it.

        Raises:
            UserError: a file that is no ViT's weights, or of one that is not known.
        """
        backbone, size = self.backbone, self.size
        if not backbone and self.file is not None:
            checkpoint = read_checkpoint(self.file)
            found = likely_backbone(checkpoint)
            if found is None:
                raise UserError(
                    f"{self.file} is {checkpoint.describe()}, of which no backbone is known; "
                    f"name it: NAME={self.file.name}"
                )
            backbone, size = found
        return ViTModelConfig(
            backbone=backbone,
            backbone_size=size,
            checkpoint_path=str(self.file.absolute()) if self.file else "",
            pretrained=False if self.random else None,
        )

    def without_weights(self, model: ViTModelConfig) -> "Candidate":
        """Return the same backbone with random weights.

        Args:
            model: see `model`.
        """
        size = f":{model.backbone_size}" if model.backbone_size else ""
        name = f"{model.backbone}{size}, random"
        return Candidate(name, model.backbone, model.backbone_size, random=True)


def candidates_of(words: Sequence[str]) -> list[Candidate]:
    """Turn what a user wrote into backbones to try, in their order.

    Args:
        words: weight files; folders of weight files, or of a model of the hub; ``NAME=FILE`` for a
            file that does not tell what it is; families (``dinov2:small``) and timm names, whose
            released weights are meant.

    Raises:
        UserError: nothing to try, a folder without weights, or what looks like a path and is not
            there.
    """
    found = [candidate for word in words for candidate in _candidates_of(word)]
    if not found:
        raise UserError("no backbone to try; give weight files, a folder of them, or names")
    names = [candidate.name for candidate in found]
    by_folder = [
        replace(of, name=f"{_folder_of(of.file)}/{of.name}")
        if of.file and names.count(of.name) > 1
        else of
        for of in found
    ]
    files: dict[str, set[Path | None]] = {}
    for of in by_folder:
        files.setdefault(of.name, set()).add(of.file)
    return [
        replace(of, name=str(of.file)) if of.file and len(files[of.name]) > 1 else of
        for of in by_folder
    ]


def _candidates_of(word: str) -> Iterator[Candidate]:
    if not word.strip():  # it would be the folder that one is in
        raise UserError("an empty word is no backbone; weight files, folders or names are expected")
    path = Path(os.path.expanduser(word))
    name, equals, file = word.partition("=")
    if os.path.lexists(path):
        yield from (Candidate(_shown(found), file=found) for found in _files_in(path))
    elif equals:
        given = Path(os.path.expanduser(file))
        if not os.path.isfile(given):
            raise UserError(f"{shorten(word, 200)}: there is no file {shorten(given, 200)!r}")
        yield Candidate(_shown(given), *_backbone_of(name), file=given)
    elif "/" in word or "\\" in word or path.suffix in _WEIGHTS:
        raise UserError(f"{shorten(word, 200)} is not there; weight files or names are expected")
    else:
        yield Candidate(word, *_backbone_of(word))


def _backbone_of(name: str) -> tuple[str, str | None]:
    """Split ``dinov2:small``; a timm name has no size apart."""
    family, _, size = name.partition(":")
    return (family, size or None) if family in MODEL_CONFIGS else (name, None)


def _files_in(path: Path) -> list[Path]:
    """List the weights in a folder: the folder itself, if it is a model of the hub."""
    if not path.is_dir() or _is_model(path):
        return [path]
    inside = sorted(path.iterdir())
    found = [f for f in inside if _is_model(f) or (f.is_file() and f.suffix in _WEIGHTS)]
    if not found:
        raise UserError(
            f"folder {path} holds no weights; files that end in {', '.join(sorted(_WEIGHTS))} are "
            "expected, or folders of a model"
        )
    return found


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_file() for name in _OF_A_MODEL)


def _folder_of(file: Path) -> str:
    return Path(os.path.abspath(file)).parent.name  # noqa: PTH100 - resolve follows links


def _shown(file: Path) -> str:
    return file.name if file.is_dir() else file.stem
