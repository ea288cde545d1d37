"""The distributions, made as a release makes them, and what every install line is tried on."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support.checkout import copy_sources
from support.material import material


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """A source distribution, and the wheel made of it; `tree` is the copy of the checkout that both are of."""

    tree: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """By `python -m build`, from a copy: setuptools leaves files beside its sources, and reads earlier ones."""
    room = tmp_path_factory.mktemp("dist")
    copy_sources(room / "tree")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(room / "out"), str(room / "tree")]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,), (wheel,) = (room / "out").glob("*.tar.gz"), (room / "out").glob("*.whl")
    return Distributions(tree=room / "tree", sdist=sdist, wheel=wheel)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return material(tmp_path_factory.mktemp("material"))


def repository(tree: Path) -> str:
    """Make a git repository of a folder; its commit."""
    git: Callable[..., subprocess.CompletedProcess[str]] = partial(
        subprocess.run, check=True, cwd=tree, capture_output=True, text=True
    )
    git(["git", "init", "--quiet"])
    git(["git", "add", "--all"])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "All of it"])
    return git(["git", "rev-parse", "HEAD"]).stdout.strip()


BUILD = [sys.executable, "packaging/distributions.py", "dist"]


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of this checkout."""
    place = tmp_path_factory.mktemp("origin") / "repository"
    copy_sources(place)
    repository(place)
    return place


def built(origin: Path, place: Path, *, umask: int, zone: str) -> dict[str, bytes]:
    """What `packaging/distributions.py` makes in a clone: name -> content."""
    subprocess.run(["git", "clone", "--quiet", str(origin), str(place)], check=True, umask=umask)
    environment = os.environ | {"TZ": zone}
    subprocess.run(BUILD, cwd=place, check=True, umask=umask, env=environment, capture_output=True)
    return {path.name: path.read_bytes() for path in (place / "dist").iterdir()}


@pytest.fixture(scope="session")
def release(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `dist` of one build."""
    place = tmp_path_factory.mktemp("release") / "clone"
    built(origin, place, umask=0o077, zone="Asia/Tokyo")
    return place / "dist"
