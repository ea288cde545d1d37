"""Licences of what an appliance installs: none is the GPL or AGPL, each is known, and parts under the LGPL are listed.

They are read from the metadata of the installed packages; `STATED` has those of packages whose metadata name none in a
form that can be read. Libraries inside wheels are not in that metadata: `BUNDLED` has what their licence files say.
"""

import re
from importlib.metadata import distribution, metadata

import pytest
from support.commands import ROOT
from support.extras import distributions

PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
}  # fmt: skip
WEAK_COPYLEFT = {"MPL-2.0"}
"""Of single files: who changes such a file publishes the change."""
KNOWN = PERMISSIVE | WEAK_COPYLEFT

SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""How the field License and classifiers write identifiers of SPDX."""

STATED = {"jinja2": "BSD-3-Clause"}
"""Its classifier says "BSD License" of an unknown version; LICENSE.txt in its wheel is the one with three clauses."""
STATED_BEFORE = dict.fromkeys(["mpmath", "numpy", "sympy"], "BSD-3-Clause")
"""The same of earlier releases, which the lowest supported versions of others bring."""

BUNDLED = {
    "opencv-python-headless": ("libavcodec", "libavformat", "libavutil", "libswresample", "libswscale", "libquadmath"),
    "numpy": ("libquadmath",),
}
"""Package -> libraries under the LGPL 2.1 in its wheel for Linux (LICENSE-3RD-PARTY.txt and LICENSE.txt there)."""
EXCEPTION = ("libgfortran", "libgomp", "libgcc_s", "libstdc++")
"""Runtime libraries of GCC: GPL 3 with the GCC Runtime Library Exception, by which programs need not be under it."""
COPYLEFT_LIBRARIES = re.compile(
    r"lib(x26[45]|avcodec|avformat|avutil|avfilter|swresample|swscale|postproc|quadmath|gfortran|gomp|gcc_s|stdc\+\+|"
    r"de265|heif|raw|gmp|mpfr|mpc|gsl|fftw3\w*|readline|dc1394|xvidcore|a52|faad|cdio|Qt\w*)-?[.\w-]*$"
)
"""File names of libraries under the GPL or LGPL that wheels for images are known to carry."""

APPLIANCE = sorted(distributions(["dicom", "appliance"]))


def licences(name: str) -> set[str]:
    """Identifiers of SPDX that the metadata of a package name; texts that are none stay as they are."""
    found = metadata(name)
    if expression := found["License-Expression"]:
        return set(re.split(r" AND | OR ", expression))
    if stated := (STATED | STATED_BEFORE).get(name):
        return {stated}
    classifiers = found.get_all("Classifier", [])
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved :: ")]
    text = found["License"] or ""
    chosen = [text] if SPELLINGS.get(text, text) in KNOWN else named or [text or "none"]
    return {SPELLINGS.get(each, each) for each in chosen}


@pytest.mark.parametrize("name", APPLIANCE)
def test_licence_of_each_package_of_an_appliance_is_known(name: str) -> None:
    """A new package with another licence fails here: read it, and add it above or leave the package out."""
    assert licences(name) <= KNOWN


def test_exceptions_are_needed() -> None:
    assert set(STATED) <= set(APPLIANCE)
    assert all(metadata(name)["License-Expression"] is None for name in STATED)


def test_libraries_inside_the_wheels() -> None:
    """Every one with a copyleft licence is listed; FFmpeg is there without its parts under the GPL."""
    found = {
        (name, match[0].split("-")[0].split(".")[0])
        for name in APPLIANCE
        for file in distribution(name).files or ()
        if ".so" in file.name and (match := COPYLEFT_LIBRARIES.match(file.name))
    }
    listed = {(name, library) for name, libraries in BUNDLED.items() for library in libraries}
    assert {(name, library) for name, library in found if library not in EXCEPTION} == listed


def test_no_extra_brings_a_package_under_the_gpl() -> None:
    """pylibjpeg-libjpeg is under the GPL 3, and python-gdcm, which is not, is for the tests alone."""
    assert not {"pylibjpeg-libjpeg", "python-gdcm", "pylibjpeg-rle"} & set(APPLIANCE)


def test_releases_page_lists_them() -> None:
    page = (ROOT / "docs/releases.md").read_text("utf-8")
    for package in BUNDLED:
        assert f"`{package}`" in page
    assert all(f"`{name}`" in page for name in APPLIANCE if licences(name) & WEAK_COPYLEFT)
