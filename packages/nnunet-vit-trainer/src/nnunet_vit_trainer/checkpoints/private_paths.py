"""Take the folders of this machine out of what is shared."""

import re
from collections.abc import Sequence
from typing import Any

# A folder's or file's name, with single blanks where another separator follows ("/my name/w").
_NAME = r"""[^\\/\s"'`<>|:;*?]+(?:(?<![,;])[ ][^\\/\s"'`<>|:;*?]+(?=[\\/]))*"""
_PATH = re.compile(
    rf"""
    (?P<url>[A-Za-z][A-Za-z0-9+.-]+://[^\s"'`<>;]*)
    | (?<![\w.\-+~%$}})\]\\/<])                      # not inside of a word or a relative name
      (?: [A-Za-z]:[\\/]+                            # a drive
        | ~(?:[A-Za-z_][\w.-]*)?[\\/]+               # a home
        | \.{{1,2}}(?:[\\/]+\.{{1,2}})*[\\/]+        # from this folder
        | \\\\ (?:[?.]\\)? (?:[A-Za-z]:\\)?          # \\server, \\?\C:
        | /+ )
      {_NAME}(?:[\\/]+{_NAME})*[\\/]*
    """,
    re.VERBOSE,
)
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\|~[\\/]")
_OPTION = re.compile(r"--?[\w-]+=|-[A-Za-z]")
_WEB = re.compile(r"(https?|ftp|s3|gs|hf|doi)://[^/]", re.IGNORECASE)


def without_paths(tree: Any) -> Any:
    """Copy nested content with every path of a machine cut to its last part, in sentences too.

    Cut are POSIX, Windows and network paths, those from a home or that begin with ``./`` or
    ``../``, and URLs but those of the web (so ``file:``, ``smb:``, ``sqlite:``), in dict keys as
    well as in values. Relative names (``a/b``, ``1/2``) are kept. Of a folder with two blanks in
    its name, in the middle of a sentence and without quotes, a part can stay.

    Args:
        tree: dicts, lists and tuples, of strings and of anything else, which is kept.
    """
    if isinstance(tree, dict):
        copied: dict[Any, Any] = {}
        for key, value in tree.items():
            name = without_paths(key)
            while name in copied:  # of /a/x.png and /b/x.png both stay
                name = f"{name}'"
            copied[name] = without_paths(value)
        return copied
    if isinstance(tree, list | tuple):
        return type(tree)([without_paths(value) for value in tree])
    if not isinstance(tree, str):
        return tree
    if _ABSOLUTE.match(tree) and not re.search(r"""[\n"'`]|[,;:.] """, tree):
        return _last_part(tree)  # one path, with any blanks in it
    return _PATH.sub(_cut, tree)


def command_without_paths(words: Sequence[str]) -> list[str]:
    """Cut every path in a command to its last part: relative ones too, and those after an option.

    Args:
        words: of the command; ``-o/home/me/masks`` and ``--config=a/b.yaml`` are two in one.
    """
    cut = []
    for word in words:
        option = match.group() if (match := _OPTION.match(word)) else ""
        value = word.removeprefix(option)
        cut.append(option + _last_part(value) if re.search(r"[\\/]", value) else word)
    return cut


def _cut(match: re.Match[str]) -> str:
    text = match.group()
    return text if match["url"] and _WEB.match(text) else _last_part(text)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]+", path.rstrip("\\/"))[-1] or path
