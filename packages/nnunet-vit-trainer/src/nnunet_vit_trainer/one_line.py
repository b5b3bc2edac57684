"""Say in one short line what others wrote: no line breaks, no control characters, no length."""


def shown(value: object, length: int = 100) -> str:
    """Quote a value from a file, escaped, and cut where it is long.

    Args:
        value: anything with a ``repr``.
        length: to keep, in characters.
    """
    text = repr(value[: length + 1] if isinstance(value, str) else value)
    return text if len(text) <= length + 2 else f"{text[:length]}..."


def one_line(error: BaseException, length: int = 200) -> str:
    """Return an error's message in one line, or its kind where there is none.

    Args:
        error: the error.
        length: to keep, in characters.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in message)[:length]
