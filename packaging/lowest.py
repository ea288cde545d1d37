"""Constraints for pip: each requirement of setup.py at its lower bound, the tools of the tests as in constraints.txt.

`python packaging/lowest.py EXTRA...` prints them for these extras and `dev`. Packages that only others require are not
named, so pip takes their newest version.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def required() -> dict[str, list[Requirement]]:
    """Requirements in setup.py by extra; "" for those without one."""
    passed: dict[str, Any] = {}
    setuptools.setup = lambda **keywords: passed.update(keywords)
    runpy.run_path(str(ROOT / "setup.py"))
    extras = {"": passed["install_requires"], **passed["extras_require"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in extras.items()}


def lowest(requirement: Requirement) -> str:
    """`name==version` of the lower bound. Raises ValueError where there is not exactly one."""
    bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement}: expected one lower bound")
    return f"{requirement.name}=={bounds[0]}"


def main(extras: list[str]) -> None:
    """Print the constraints, sorted."""
    requirements = required()
    tools = {requirement.name for requirement in requirements["dev"]}
    tested = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    lines = {line for line in tested if line.partition("==")[0] in tools}
    lines |= {lowest(each) for extra in ("", *extras) for each in requirements[extra]}
    sys.stdout.write("".join(f"{line}\n" for line in sorted(lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
