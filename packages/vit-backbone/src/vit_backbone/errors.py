"""Errors that a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave; its one-line message says what came and what to do.

    The commands print the message alone and exit with code 2; a library caller catches it as a
    ``ValueError``.
    """


class WeightsError(UserError):
    """Pretrained weights that are missing, unreadable, or do not fill the whole backbone."""


def first_line(error: Exception) -> str:
    """Return the first line of another library's message, at most 200 characters of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
