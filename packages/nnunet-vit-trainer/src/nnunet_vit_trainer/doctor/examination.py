"""What an examination found, as the page tells it. No torch here."""

from dataclasses import dataclass, field

from .problems import Problem


@dataclass
class Examination:
    """What was found.

    Attributes:
        title: what was examined.
        facts: (name, value) lines, in order.
        trainable: (part, parameters, learning rate, weight decay) lines.
        problems: what to change, fatal ones first.
        fold: to train first.
    """

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    trainable: list[tuple[str, str, str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    fold: str = "0"

    @property
    def is_fatal(self) -> bool:
        """Whether the run should not be started."""
        return any(problem.fatal for problem in self.problems)
