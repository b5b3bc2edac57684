"""Errors that a user can mend."""

from numbers import Integral, Real
from pathlib import Path
from traceback import walk_tb

_LONGEST = 500


def shorten(value: object, longest: int = 120) -> str:
    """Return a value's text in one printable line, its middle left out where it is long.

    Args:
        value: a name, a path or another value for a message.
        longest: in characters, at least 10.
    """
    text = "".join(c if c.isprintable() else " " for c in str(value))
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 5]} ... {text[-end:]}"


def quoted(value: object, longest: int = 100) -> str:
    """Return a value's ``repr`` in one line, its middle left out where it is long.

    Args:
        value: what somebody wrote into a file.
        longest: in characters, at least 10.
    """
    if isinstance(value, str) and len(value) > 2 * longest:  # as much as can be seen of it
        value = value[:longest] + value[-longest:]
    try:
        return shorten(repr(value), longest)
    except ValueError:  # Python writes no number of more than 4300 digits
        return f"a very long {type(value).__name__}"


def reason_of(error: BaseException, longest: int = 200) -> str:
    """Return another library's message in one line, or the error's kind and place without one.

    Args:
        error: what was raised.
        longest: in characters, at least 10.
    """
    return shorten(" ".join(str(error).split()) or _kind_and_place(error), longest)


def _kind_and_place(error: BaseException) -> str:
    kind = type(error).__name__
    if error.__traceback__ is None:
        return kind
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{kind} in {Path(frame.f_code.co_filename).name}, line {line}"


class UserError(ValueError):
    """A mistake in what the user gave; its one-line message says what came and what to do.

    The commands print the message alone and exit with code 2; a library caller catches it as a
    ``ValueError``. Whatever stands in it, the message is one line of at most 500 characters.
    """

    def __init__(self, message: object) -> None:
        super().__init__(shorten(message, _LONGEST))


def is_count(value: object) -> bool:
    """Say whether it is a whole number of at least 1; truth values are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def is_number(value: object) -> bool:
    """Say whether it is a number; truth values are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1; truth values are none.

    Args:
        name: of the option, for the message.
        value: what the user gave for it.

    Raises:
        UserError: another number, or none.
    """
    if not is_count(value):
        raise UserError(f"{name} {quoted(value)}: a whole number of at least 1 is expected")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither ``True`` nor ``False``: as a condition, the text "no" would be true.

    Args:
        name: of the option, for the message.
        value: what the user gave for it.

    Raises:
        UserError: anything else.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} {quoted(value)}: True or False is expected")


class WeightsError(UserError):
    """Pretrained weights that are missing, unreadable, or do not fill the whole backbone."""
