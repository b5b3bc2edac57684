"""Set up and run this project where there is only Python >= 3.11 and git.

    python3 dev.py demo [FOLDER]    install what is missing and run the demo
    python3 dev.py test quick       install what is missing and run the unit tests
    python3 dev.py test [ARGS]      install what is missing and run every check (nox)

uv, which does the rest, is taken from the PATH or put into .uv/ here.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
UV_RANGE = "uv>=0.9,<1"  # as required-version in pyproject.toml


def find_uv() -> str:
    """Return a uv that this project takes; install one into .uv/ where there is none."""
    own = ROOT / ".uv"
    program = own / ("Scripts/uv.exe" if os.name == "nt" else "bin/uv")
    for candidate in (str(program), shutil.which("uv")):
        if candidate and Path(candidate).is_file() and _fits(candidate):
            return candidate
    venv.create(own, with_pip=True, clear=True)
    subprocess.run(
        [program.with_name("python"), "-m", "pip", "install", "--quiet", UV_RANGE], check=True
    )
    return str(program)


def _fits(uv: str) -> bool:
    said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout
    number = re.match(r"uv (\d+)\.(\d+)", said)
    return bool(number) and (0, 9) <= tuple(map(int, number.groups())) < (1, 0)


def main() -> int:
    """Run one of the two commands and return its exit code."""
    if sys.version_info < (3, 11):
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    if len(sys.argv) < 2 or sys.argv[1] not in ("demo", "test"):
        sys.exit(__doc__)
    uv, arguments = find_uv(), sys.argv[2:]
    if arguments[:1] == ["quick"]:
        arguments = ["-s", *arguments]
    # The registry's default build of everything; a shell's own environment is left alone. Without
    # compiled files each of the tests' many processes would compile torch, timm and the rest anew.
    others = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {k: v for k, v in os.environ.items() if k not in others}
    environment["PATH"] = os.pathsep.join([str(Path(uv).parent), environment.get("PATH", "")])
    command = {
        "demo": ["--package=nnunet-vit-trainer", "--extra=all", "nnUNetv2_demo_vit"],
        "test": ["--only-group=dev", "--isolated", "nox", f"--noxfile={ROOT / 'noxfile.py'}"],
    }[sys.argv[1]]
    run = [uv, "run", f"--project={ROOT}", *command, *arguments]
    return subprocess.run(run, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
