"""Read a stranger's zip: its names, its kinds of members and its size are checked, not believed."""

import errno
import re
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vit_backbone import UserError, quoted, reason_of

MAX_MEMBERS = 1000
"""Of a zip; an export of five folds has about twenty."""
_NOT_IN_NAMES = set('<>:"|?*\\/')
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # plainly, strongly, its header too
_BLOCK = 1 << 20
# A zip allows 65,535 characters, half of them slashes: each folder on the way is listed below.
_LONGEST = 1000


def is_plain_name(name: str) -> bool:
    """Say whether a file or folder may have this name on every system, and stays where it is put.

    Not so: separators and drives, ``.`` and ``..``, what Windows reserves or trims (``con.txt``, a
    dot or a blank at the end), characters that are not seen, and more than 255 bytes.

    Args:
        name: without folders.
    """
    return (
        0 < len(name.encode(errors="replace")) <= 255
        and name == name.strip(" ").rstrip(". ")
        and not _NOT_IN_NAMES.intersection(name)
        and not _RESERVED.fullmatch(name)
        and all(character.isprintable() for character in name)
    )


@contextmanager
def readable_zip(file: str | Path | None) -> Iterator[None]:
    """Turn what reading a broken or strange zip raises into one line.

    Args:
        file: the zip, for messages.
    """
    try:
        yield
    except UserError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
        OverflowError,
    ) as error:  # fmt: skip
        raise UserError(f"{file} cannot be read as a zip: {reason_of(error)}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is a member that begins before the file does
            raise
        raise UserError(f"{file} cannot be read as a zip: {reason_of(error)}") from error


@contextmanager
def opened_export(file: str | Path, otherwise: str) -> Iterator[zipfile.ZipFile]:
    """Open a stranger's zip.

    Args:
        file: the zip.
        otherwise: what is said of the file where a disk does not let it be read, or written out.

    Raises:
        UserError: no such file, no zip, or what a disk said.
    """
    if not Path(file).is_file():
        raise UserError(f"{file}: no such file")
    try:
        with readable_zip(file):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive
    except OSError as error:
        raise UserError(f"{file} {otherwise}: {reason_of(error)}") from error


def checked_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files in a zip, once every member is sure to be a plain file or folder below it.

    Raises:
        UserError: a name that is not its own normal form, that stands twice (also for a system that
            ignores case), that is a file and a folder or that the member itself does not have; a
            link; a member that is encrypted or compressed in an unusual way; or too many members.
    """
    members, source = archive.infolist(), str(archive.filename)
    if len(members) > MAX_MEMBERS:
        raise UserError(f"{source} has {len(members)} members, an export at most {MAX_MEMBERS}")
    for member in members:
        _check_member(member, source)
    files = [member for member in members if not member.is_dir()]
    names = [member.filename for member in files]
    folders = {member.filename.removesuffix("/") for member in members if member.is_dir()}
    folders |= {str(p) for n in (*names, *folders) for p in PurePosixPath(n).parents[:-1]}
    places = Counter(map(_place, [*names, *folders]))
    if clash := next((name for name in (*names, *folders) if places[_place(name)] > 1), None):
        raise UserError(
            f"{source}: {quoted(clash)} stands twice, as a file and a folder, or in two spellings; "
            "nothing is installed"
        )
    for member in members:  # a damaged name would be left out as one that is not known
        with readable_zip(source), archive.open(member):
            pass
    return files


def _check_member(member: zipfile.ZipInfo, source: str) -> None:
    # zipfile cuts `filename` at a NUL and, on Windows, turns backslashes.
    name = member.orig_filename
    if member.filename != name or not all(map(is_plain_name, name.removesuffix("/").split("/"))):
        raise UserError(
            f"{source}: {quoted(name)} is no plain name and would be written elsewhere; nothing is "
            "installed"
        )
    if len(name) > _LONGEST:
        raise UserError(f"{source}: {quoted(name)} is longer than {_LONGEST} characters")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        raise UserError(f"{source}: {quoted(name)} is a link or a device; nothing is installed")
    if member.flag_bits & _ENCRYPTED:
        raise UserError(f"{source}: {quoted(name)} is encrypted; zip it anew without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{source}: {quoted(name)} is compressed by method {member.compress_type}; zip it "
            "anew, stored or deflated"
        )


def _place(name: str) -> str:
    """Return what a name is on a system that ignores case and how accents are written."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def unpack(
    archive: zipfile.ZipFile,
    places: dict[str, zipfile.ZipInfo],
    folder: Path,
    limit: int,
    taken: int = 0,
) -> None:
    """Write members of a zip below a folder, where there is none of them yet, up to a limit.

    The sizes in a zip's headers are claims: nothing is written when they are too large already, and
    the bytes that come are counted too.

    Args:
        archive: the zip.
        places: where each member goes, relative to the folder.
        folder: it is there.
        limit: for all of them together, in bytes.
        taken: what of the limit is taken by something else.

    Raises:
        UserError: more than the limit, a place outside of the folder, or broken contents.
    """
    left = limit - taken
    too_large = (
        f"{archive.filename} unpacks to more than {limit / 1e6:.0f} MB, which no export of its "
        "size does; nothing is installed"
    )
    if sum(member.file_size for member in places.values()) > left:
        raise UserError(too_large)
    for place, member in places.items():
        target = folder / place
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{archive.filename}: {quoted(place)} leads elsewhere")
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            readable_zip(archive.filename),
            archive.open(member) as source,
            target.open("xb") as file,
        ):
            while block := source.read(_BLOCK):
                left -= len(block)
                if left < 0:
                    raise UserError(too_large)
                file.write(block)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """Read a member into memory.

    Args:
        archive: the zip.
        member: one of its files.
        limit: in bytes; what comes is counted.

    Raises:
        UserError: more than the limit, or broken contents.
    """
    with readable_zip(archive.filename), archive.open(member) as source:
        content = source.read(limit + 1)
    if len(content) > limit:
        raise UserError(
            f"{archive.filename}: {quoted(member.filename)} is larger than {limit / 1e6:.0f} MB; "
            "nothing is installed"
        )
    return content
