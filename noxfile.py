"""Every check of the project. `nox` runs all of them; `nox -l` lists them."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
MODULES = {
    "vit-backbone": "vit_backbone",
    "vit-heads-unetr": "vit_heads_unetr",
    "vit-heads-segformer": "vit_heads_segformer",
    "nnunet-vit-trainer": "nnunet_vit_trainer",
}
# A file of tests is one process's work, for the sake of what it trains once. A process takes one
# core (conftest.py) and some 1.5 GB.
PARALLEL = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", "--durations=10")
# What stands below a package and is therefore in its environment.
BELOW = {
    "vit-backbone": set(),
    "vit-heads-unetr": {"vit-backbone"},
    "vit-heads-segformer": {"vit-backbone"},
    "nnunet-vit-trainer": {"vit-backbone"},
}
# What its tests need of its extras.
EXTRAS = {"vit-backbone": ("lora", "onnx"), "nnunet-vit-trainer": ("compare", "onnx")}
# Other environments than the lock's: Python, how versions are chosen, and what is held.
ENVIRONMENTS = [
    nox.param("3.11", "lowest-direct", "", id="lowest"),
    *[nox.param(python, "highest", "", id=f"python-{python}") for python in ("3.12", "3.13")],
    *[
        nox.param("3.11", "highest", f"nnunetv2=={version}", id=f"nnunetv2-{version}")
        for version in ("2.8.0", "2.8.1")
    ],
]


def sync(session: nox.Session, package: str, *extras: str) -> None:
    """Make the session's environment hold one package, what is below it, and its tests' needs."""
    session.run_install(
        "uv",
        "sync",
        f"--package={package}",
        "--group=test",
        "--no-default-groups",
        *(f"--extra={extra}" for extra in extras),
        f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )


def must_not_import(session: nox.Session, *modules: str) -> None:
    """Fail if the session's environment holds any of the modules."""
    found = f"[m for m in {list(modules)} if importlib.util.find_spec(m)]"
    session.run("python", "-c", f"import importlib.util, sys; sys.exit({found} or 0)")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, which way imports run, and the lock."""
    session.run_install(
        # What the packages import is looked at, not run; they themselves stand below packages/.
        *["uv", "sync", "--all-packages", "--all-groups", "--no-install-workspace"],
        f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    check_types(session)
    lint_imports(session)
    lock = session.create_tmp() + "/requirements.lock"
    write_lock(session, lock, *held_versions((ROOT / "requirements.lock").read_text()))
    if Path(lock).read_text() != (ROOT / "requirements.lock").read_text():
        session.error("requirements.lock does not fit the packages' needs: run nox -s lock")


def check_types(session: nox.Session) -> None:
    """Check types; another checkout in the shell's PYTHONPATH would be taken for this one."""
    session.run("ty", "check", f"--python={session.virtualenv.location}", env={"PYTHONPATH": None})


def lint_imports(session: nox.Session) -> None:
    """Hold the imports to the contracts of pyproject.toml; nothing is imported for it."""
    sources = os.pathsep.join(str(folder) for folder in sorted(ROOT.glob("packages/*/src")))
    session.run("lint-imports", "--verbose", env={"PYTHONPATH": sources}, silent=True)


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """The checks of a coffee's length: style, types, imports, and all unit tests at once."""
    session.run_install(
        *["uv", "sync", "--all-packages", "--all-extras", "--all-groups"],
        f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    check_types(session)
    lint_imports(session)
    # Tracing (torch.compile, torch.export) takes as long as all the rest: `nox -s tests` does it.
    session.run(
        *["pytest", *PARALLEL, "packages", "-k", "not equals_eager"],
        *["-m", "not integration and not slow and not torture"],
        *session.posargs,
    )


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew."""
    write_lock(session, str(ROOT / "requirements.lock"))


def write_lock(session: nox.Session, file: str, *held: str) -> None:
    """Resolve from scratch and export every version with its sha256 and no host.

    Args:
        session: nox's.
        file: where to.
        held: versions (name==1.2) to keep.
    """
    hold = [f"--upgrade-package={version}" for version in held]
    with made_anew(ROOT / "uv.lock"):
        session.run("uv", "lock", *hold, external=True, silent=True, log=not held)
    session.run(
        *["uv", "export", "--locked", "--all-packages", "--all-extras", "--all-groups"],
        *["--no-emit-workspace", "--no-header", "--quiet", "--output-file"],
        file,
        external=True,
        silent=True,
    )


def held_versions(lock: str) -> list[str]:
    """List a lock's versions, but for packages of several, which only markers tell apart.

    An index may show late what was uploaded before exclude-newer's date (seen: after eleven days).
    That is no fault of the lock, which is checked to be a whole resolution, and the one in use.
    """
    pins = re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", lock, re.M)
    names = [name for name, _ in pins]
    return [f"{name}=={version}" for name, version in pins if names.count(name) == 1]


@contextlib.contextmanager
def made_anew(file: Path) -> Iterator[None]:
    """Put a file aside while it is written anew, and put it back where that fails.

    One that lies aside is what a killed run left; the file itself may be half written then.
    """
    aside = file.with_name(f"{file.name}.before")
    if aside.is_file():
        file.unlink(missing_ok=True)
    elif file.is_file():
        file.replace(aside)
    try:
        yield
    except BaseException:
        if aside.is_file():
            aside.replace(file)
        raise
    aside.unlink(missing_ok=True)


@nox.session
@nox.parametrize("package", list(MODULES), ids=list(MODULES))
def tests(session: nox.Session, package: str) -> None:
    """A package's unit tests where only it and what is below it are installed."""
    sync(session, package, *EXTRAS.get(package, ()))
    others = set(MODULES) - BELOW[package] - {package}
    unseen = {MODULES[other] for other in others}
    if package != "nnunet-vit-trainer":
        unseen.add("nnunetv2")
    must_not_import(session, *unseen)
    tests = f"packages/{package}/tests"
    marks = "not integration and not torture"
    session.run("pytest", *PARALLEL, tests, "-m", marks, *session.posargs)


@nox.session
@nox.parametrize("head", ["unetr", "segformer"])
def one_head(session: nox.Session, head: str) -> None:
    """The trainer with one head and not the other."""
    sync(session, "nnunet-vit-trainer", head)
    must_not_import(session, *({"vit_heads_unetr", "vit_heads_segformer"} - {f"vit_heads_{head}"}))
    folder = "packages/nnunet-vit-trainer/tests"
    # What the trainer's own session skips, without any head.
    names = ("one_head", "old_plans", "shipped_configs", "reference", "cards", "compiled", "demo")
    tests = [f"{folder}/test_{name}.py" for name in names]
    session.run("pytest", *tests, *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Train, validate, resume and predict with the real commands; CUDA where there is one."""
    sync(session, "nnunet-vit-trainer", "all")
    marks = "(integration or gpu) and not torture"
    session.run("pytest", *PARALLEL, "packages", "-m", marks, *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documents' commands, run; some 15 min. `-- docs/compare.md` runs one alone."""
    session.run_install(
        *["uv", "sync", "--all-packages", "--all-extras", "--no-default-groups"],
        f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )
    folder = Path(session.create_tmp()).resolve() / "documents"
    if not session.posargs:
        shutil.rmtree(folder, ignore_errors=True)
    runner = "packages/nnunet-vit-trainer/tests/run_documents.py"
    session.run("python", runner, str(folder), *session.posargs)


@nox.session(default=False)
def torture(session: nox.Session) -> None:
    """What tries to break it, for long: kills, floods of broken files, a long life; 2 h or so."""
    sync(session, "nnunet-vit-trainer", "all")
    session.run("pytest", *PARALLEL, "packages", "-m", "torture", *session.posargs)


@nox.session(default=False)
@nox.parametrize(["python", "resolution", "held"], ENVIRONMENTS)
def environments(session: nox.Session, resolution: str, held: str) -> None:
    """The unit tests and one training elsewhere: other Pythons, lowest versions, other nnU-Nets.

    With ``--no-error-on-missing-interpreters`` Pythons that are not there are left out.
    """
    folder = Path(session.create_tmp()).resolve()
    (folder / "held.txt").write_text(held)
    session.run(
        *["uv", "pip", "compile", "--quiet", "--all-extras", f"--resolution={resolution}"],
        *[f"--python={session.virtualenv.location}", f"--constraint={folder / 'held.txt'}"],
        *[f"--no-emit-package={package}" for package in MODULES],
        *[f"--group=packages/{package}/pyproject.toml:test" for package in MODULES],
        *[f"--output-file={folder / 'versions.txt'}"],
        *[f"packages/{package}/pyproject.toml" for package in MODULES],
        external=True,
    )
    session.install("-r", str(folder / "versions.txt"))
    session.install("--no-deps", *(f"--editable=packages/{package}" for package in MODULES))
    # What old versions of others warn of in new ones is no fault of ours.
    marks = ["-W=default", "-m=not integration and not slow and not torture"]
    session.run("pytest", *PARALLEL, "packages", *marks, *session.posargs)
    session.run(
        *["pytest", "packages/nnunet-vit-trainer/tests/test_integration.py"],
        "-k=leaves_what_nnunet_leaves or stock_prediction_in_a_fresh_process",
    )


@nox.session(default=False)
def without_trainer(session: nox.Session) -> None:
    """The packages that need no nnU-Net, with the newest timm, which nnU-Net's needs hold back."""
    alone = [package for package in MODULES if package != "nnunet-vit-trainer"]
    needs = ("pytest", "pytest-xdist", "hypothesis")
    extras = {"vit-backbone": "[lora,onnx]"}
    editable = [f"--editable=packages/{package}{extras.get(package, '')}" for package in alone]
    session.install(*editable, *needs)
    tests = [f"packages/{package}/tests" for package in alone]
    marks = ["-W=default", "-m=not integration and not torture"]
    session.run("pytest", *PARALLEL, *tests, *marks, *session.posargs)


@nox.session
def stranger(session: nox.Session) -> None:
    """The head of docs/write-a-head.md, from outside the workspace, trains by its name."""
    sync(session, "nnunet-vit-trainer")
    folder = Path(session.create_tmp()).resolve() / "stranger"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "my_head").mkdir(parents=True)
    document = (ROOT / "docs" / "write-a-head.md").read_text()
    for name, text in re.findall(r"```\w+\n# (\S+)[^\n]*\n(.*?)```", document, re.S):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    entry_points = (folder / "pyproject.toml").read_text()
    project = '[project]\nname = "my-head"\nversion = "1"\ndependencies = ["vit-backbone"]\n'
    (folder / "pyproject.toml").write_text(project + entry_points)
    session.install("--no-deps", "--no-sources", str(folder))
    must_not_import(session, "vit_heads_unetr", "vit_heads_segformer")
    session.run("pytest", str(folder / "tests"), "-q", "-p", "no:cacheprovider")
    session.run(
        "pytest",
        "packages/nnunet-vit-trainer/tests/test_integration.py",
        "-k=trained_by_its_name",
        env={"STRANGERS_HEAD": "my_head"},
    )


@nox.session
def wheels(session: nox.Session) -> None:
    """The published form: wheels, installed away from the checkout, train and predict."""
    out = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(out, ignore_errors=True)
    session.run(
        # Each wheel from its source distribution, which therefore is whole without the workspace.
        *["uv", "build", "--all-packages", "--no-sources", "--quiet", "--out-dir"],
        str(out),
        external=True,
    )
    # The lock's versions, so that what is tested here is what was tested above.
    # Not a wheel of the same version that uv has kept from an earlier run.
    refresh = [f"--refresh-package={package}" for package in MODULES]
    published = ["--constraint=requirements.lock", f"--find-links={out}", *refresh]
    # Every extra can be had, though few are installed: within the workspace nobody asks whether
    # our packages' bounds on each other hold.
    session.install(*published, "--dry-run", "nnunet-vit-trainer[all,completion]")
    session.install(*published, "nnunet-vit-trainer[segformer]")
    must_not_import(session, "vit_heads_unetr", "pytest")
    session.chdir(session.create_tmp())
    session.run("nnUNetv2_demo_vit", "demo")
    session.run("nnUNetv2_configs_vit", "--show", "recommended_retfound_cfp")
