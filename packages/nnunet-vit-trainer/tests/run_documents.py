"""Run the blocks below ``<!-- run -->`` of the documents: `nox -s docs`.

`python run_documents.py FOLDER [DOCUMENT ...]` runs all, or those that are named (docs/compare.md),
each in a folder and a shell of its own. Blocks of bash are commands; others are files, whose first
line is a comment with their name. What a document presupposes is made by prepare_document.sh.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from documents import DOCUMENTS, ROOT, blocks_of, commands_of

FIRST_RUN = "README.md"  # the how-tos go on from its folder
IN_ONE_SHELL = ("docs/tutorial.md", "docs/sharing.md", "docs/serving.md")
_TESTS = Path(__file__).parent
_END = "END_OF_THE_BLOCK"


def shells():
    """List what is run in one shell each: names of documents, the first run first."""
    names = [str(file.relative_to(ROOT)) for file in DOCUMENTS]
    marked = [name for name in names if any(block.runs for block in blocks_in(name))]
    alone = [(name,) for name in marked if name not in (FIRST_RUN, *IN_ONE_SHELL)]
    return [(FIRST_RUN,), IN_ONE_SHELL, *alone]


def blocks_in(name):
    return blocks_of((ROOT / name).read_text())


def script_of(name, blocks):
    """Return a document's blocks, with what it presupposes, as a script of bash."""
    parts = [f"DOCUMENT={name}\n. {_TESTS / 'prepare_document.sh'}\n"]
    for block in blocks:
        if not block.runs:
            continue
        parts.append(f"echo; echo '== {name}:{block.line}'\n")
        if block.language == "bash":
            parts.append(block.text)
        else:
            file = re.match(r"# ([\w.-]+)", block.text)[1]
            parts.append(f"cat > {file} <<'{_END}'\n{block.text}{_END}\n")
    return "".join(parts)


def run(names, folder):
    """Run documents in one shell, in a new folder below this one, whose name says if it failed."""
    own = folder / names[0].replace("/", "_")
    failed = own.with_name(f"{own.name}_failed")
    for old in (own, failed):
        shutil.rmtree(old, ignore_errors=True)
    own.mkdir(parents=True)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FIRST_RUN": str(folder / FIRST_RUN),
        "TESTS": str(_TESTS),
        "HF_HOME": str(folder / "no_weights"),
        "HF_HUB_OFFLINE": "1",
    }
    script = "".join(script_of(name, blocks_in(name)) for name in names)
    command = ["bash", "-euo", "pipefail", "-c", script]
    if subprocess.run(command, cwd=own, env=environment, check=False).returncode:
        own.rename(failed)
    return own.is_dir()


def table_of_commands():
    """Tell in Markdown how many commands of nnU-Net's and ours each document has run, or not."""
    lines = ["| document | run | not run |", "|---|---|---|"]
    total = [0, 0]
    for name in (str(file.relative_to(ROOT)) for file in DOCUMENTS):
        counts = [(b, len(commands_of(b.text))) for b in blocks_in(name) if b.language == "bash"]
        ran = sum(count for block, count in counts if block.runs)
        why = [(count, block.mark) for block, count in counts if count and not block.runs]
        total = [total[0] + ran, total[1] + sum(count for count, _ in why)]
        if ran or why:
            told = "; ".join(f"{count}: {mark.removeprefix('not run: ')}" for count, mark in why)
            lines.append(f"| {name} | {ran} | {told} |")
    return "\n".join([*lines, f"| all | {total[0]} | {total[1]} |"])


def main():
    folder, asked = Path(sys.argv[1]).resolve(), {*sys.argv[2:]}
    if unknown := asked - {name for names in shells() for name in names}:
        sys.exit(f"no such document, or nothing in it is run: {' '.join(unknown)}")
    chosen = [names for names in shells() if not asked or asked & {*names}]
    first = [(FIRST_RUN,)] if not asked or not (folder / FIRST_RUN).is_dir() else []
    others = [names for names in chosen if names != (FIRST_RUN,)]
    if not all(run(names, folder) for names in first):
        sys.exit(f"failed: {FIRST_RUN}, from which all others go on")
    if failed := [name for name in others if not run(name, folder)]:
        sys.exit(f"failed: {failed}")
    if not asked:
        sys.stdout.write(f"\n{table_of_commands()}\n")


if __name__ == "__main__":
    main()
