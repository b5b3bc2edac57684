"""Run the blocks below ``<!-- run -->`` of the documents in a folder; ``nox -s docs`` does it.

Blocks of bash are commands; others are files, whose first line is a comment with their name.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from documents import ROOT, RUN_IN_ORDER, blocks_of

_END = "END_OF_THE_BLOCK"


def script_of(name, document):
    """Return a document's blocks as one script of bash."""
    parts = []
    for block in blocks_of(document):
        if not block.runs:
            continue
        parts.append(f"echo; echo '== docs/{name}:{block.line}'\n")
        if block.language == "bash":
            parts.append(block.text)
        else:
            file = re.match(r"# ([\w.-]+)", block.text)[1]
            parts.append(f"cat > {file} <<'{_END}'\n{block.text}{_END}\n")
    return "".join(parts)


def main():
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    documents = {name: (ROOT / "docs" / name).read_text() for name in RUN_IN_ORDER}
    script = "".join(script_of(name, text) for name, text in documents.items())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", script]
    sys.exit(subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}).returncode)


if __name__ == "__main__":
    main()
