"""What the packages ask of each other; in the workspace uv does not look at these ranges."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = Path(__file__).parents[2]


def test_the_packages_need_each_other_s_present_versions():
    projects = [
        tomllib.loads(file.read_text())["project"] for file in PACKAGES.glob("*/pyproject.toml")
    ]
    versions = {project["name"]: project["version"] for project in projects}
    for project in projects:
        extras = project.get("optional-dependencies", {})
        for text in (
            *project["dependencies"],
            *(need for needs in extras.values() for need in needs),
        ):
            need = Requirement(text)
            if need.name in versions:
                assert need.specifier.contains(versions[need.name]), f"{project['name']}: {text}"
