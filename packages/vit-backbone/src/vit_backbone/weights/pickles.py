"""Look at what a pickle would build before it is built: no more than it says itself."""

import io
import pickletools
import zipfile
from typing import IO

# Sizes that real checkpoints are far below: what they say twice they say a few times.
_PER_OPERATION, _ALWAYS = 100, 10_000
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


def check_pickle(stream: IO[bytes]) -> None:
    """Refuse a pickle that means much more than it holds; nothing of it is built for that.

    Torch's reader for data alone runs no code, but it can be kept busy for ever: by a tuple that
    holds another one ten times, which holds another one ten times, and so on, as a key of a dict.

    Args:
        stream: at the pickle's beginning; it is read to the pickle's end.

    Raises:
        ValueError: such a pickle, one that asks for a bytearray of some size, or none at all.
    """
    stack: list[int] = []  # how many values each object means, and those in it
    marks: list[int] = []
    memo: dict[object, int] = {}
    for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        name = operation.name
        if name == "GLOBAL" and str(argument).endswith(" bytearray"):
            raise ValueError("it asks for a bytearray, which no checkpoint needs")
        if name == "MARK":
            marks.append(len(stack))
        elif name in _PUTS:
            memo[argument] = stack[-1] if stack else 1
        elif name in _GETS:
            stack.append(memo.get(argument, 1))
        else:
            size = 1 + sum(_taken(operation, stack, marks))
            if size > _PER_OPERATION * number + _ALWAYS:
                raise ValueError("it means far more than it holds (tuples in each other)")
            stack += [size] * len(operation.stack_after)


def check_torch_zip(archive: zipfile.ZipFile, size: int) -> str | None:
    """Look through a file of torch's before torch reads it, which looks at no checksum.

    Args:
        archive: open for reading.
        size: of its file, in bytes.

    Returns:
        The record that is damaged, or ``None``.

    Raises:
        ValueError: see `check_pickle`, or records that torch would unpack, or read twice, into more
            memory than the file is large.
    """
    records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("it is compressed inside, which torch.save never does; save it anew")
    if sum(record.file_size for record in records) > size:
        raise ValueError("its records claim to be larger than the file")
    if not any(record.CRC for record in records):
        for record in records:  # saved under torch.serialization.set_crc32_options(False)
            del record.CRC  # zipfile looks at none then
    if (damaged := archive.testzip()) is not None:
        return damaged
    for record in records:
        if record.filename.endswith("/data.pkl"):
            check_pickle(io.BytesIO(archive.read(record)))
    return None


def _taken(operation: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> list[int]:
    """Take from the stack what an operation takes: so many objects, or all above the last mark."""
    needs = operation.stack_before
    if pickletools.markobject in needs:
        start = (marks.pop() if marks else 0) - needs.index(pickletools.markobject)
    else:
        start = len(stack) - len(needs)
    taken = stack[max(0, start) :]
    del stack[max(0, start) :]
    return taken
