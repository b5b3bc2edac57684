"""What a Markdown document of the project holds: fenced blocks, commands, links, headings."""

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from argparse import ArgumentParser
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packages/*/README.md")]
)

_FENCE = re.compile(r"^(?:<!-- (run|not run: [^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
_PATH_OF_COMMAND = re.compile(r'"?\$\(command -v (\w+)\)"?')
_COMMENT = re.compile(r"(^|\s)#.*")
_ENDS = {";", "&&", "||", "|", "&", ">", ">>", "<"}


class Block(NamedTuple):
    """A fenced block: its language, what is in it, its first line's number, and its mark.

    The mark is ``run``, ``not run: `` with the reason, or nothing.
    """

    language: str
    text: str
    line: int
    mark: str

    @property
    def runs(self):
        return self.mark == "run"


def blocks_of(document):
    """List the fenced blocks of a document's text."""
    return [
        Block(match[2], match[3], document[: match.start(3)].count("\n") + 1, match[1] or "")
        for match in _FENCE.finditer(document)
    ]


def commands_of(script):
    """List nnU-Net's commands and ours in a shell script: each a name and its arguments."""
    script = _PATH_OF_COMMAND.sub(r"\1", script.replace("\\\n", " "))
    found = []
    for line in script.splitlines():
        lexer = shlex.shlex(_COMMENT.sub("", line), posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split, lexer.commenters = True, ""
        arguments = None
        for word in lexer:
            if word in _ENDS:
                arguments = None
            elif re.fullmatch(r"nnUNetv2_\w+", word) and arguments is None:
                arguments = []
                found.append((word, arguments))
            elif arguments is not None:
                arguments.append(word)
    return found


def links_of(document):
    """List the targets of links and pictures outside of blocks."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", _FENCE.sub("", document)))


def anchors_of(document):
    """List what a link may name after ``#``: the headings, as they are spelt on the web."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document), re.M)
    plain = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@cache
def our_commands():
    """Return our commands' names, and the module of each."""
    pyproject = tomllib.loads((ROOT / "packages/nnunet-vit-trainer/pyproject.toml").read_text())
    return {name: value.split(":")[0] for name, value in pyproject["project"]["scripts"].items()}


def parser_of(command):
    """Return the parser of a command of ours: its module's one function ``..._parser``."""
    module = importlib.import_module(our_commands()[command])
    (make,) = (
        made
        for name, made in vars(module).items()
        if name.endswith("_parser") and made.__module__ == module.__name__
    )
    parser = make()
    assert isinstance(parser, ArgumentParser)
    return parser


def our_options(command):
    """Return the options of a command of ours, as its help names them."""
    return {*re.findall(r"(?<!\w)--?\w+", parser_of(command).format_help())}


@cache
def stock_options(command):
    """Return the options of a stock command, read off its source: importing it takes seconds."""
    (entry,) = entry_points(group="console_scripts", name=command)
    package, *rest = entry.module.split(".")
    folder = Path(importlib.util.find_spec(package).origin).parent
    tree = ast.parse(folder.joinpath(*rest).with_suffix(".py").read_text())
    (function,) = (f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == entry.attr)
    return {
        argument.value
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }


@cache
def texts_of_sources():
    """Return every text in our sources; of those with values in them, each part."""
    return [
        node.value
        for file in ROOT.glob("packages/*/src/**/*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def parts_not_said(message):
    """List the parts of a quoted message, between ``…``, that our sources do not say.

    A part may be put together from several texts, but not from crumbs.
    """
    parts = [part.strip() for part in message.split("…")]
    return [p for p in parts if p and len(pieces_of(p)) > 1 + len(p) / 12]


def pieces_of(part):
    """Cut a part of a message into the longest pieces that are found in texts of our sources."""
    pieces = []
    while part:
        end = len(part)
        while end > 1 and not any(part[:end] in text for text in texts_of_sources()):
            end -= 1
        pieces.append(part[:end])
        part = part[end:].lstrip()
    return pieces
