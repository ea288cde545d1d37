"""This copy of glam-deploy: which extras it has, the command that adds one, and the folder of its documentation.

An extra is a set of optional requirements (core metadata 2.1, Provides-Extra; setup.py defines them). The command
depends on where this copy was installed from, which pip records in `direct_url.json` (PEP 610; PyPA specification
"Recording the Direct URL Origin of installed distributions"). The name "glam-deploy" alone is printed only where there
is no such record: then the copy came from an index.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urlsplit

from glam_deploy.errors import BackendUnavailable

NAME = "glam-deploy"
TREE = Path(__file__).parents[1]
"""The checkout that this copy runs from, else the folder of all installed packages."""
IN_CHECKOUT = (TREE / "setup.py").is_file()
URL_CHARACTERS = ":/?#[]@!$&'()*+,;=%~"
"""Reserved characters of RFC 3986 (2.2), and the sign of encoded ones."""
DOCUMENTATION = "share/doc/glam-deploy"
"""Where a wheel puts README.md, docs/, packaging/ and examples/, in the prefix that it is installed into."""

CUDA = ("cuda.core", "cuda.bindings")

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "export": ("torch", "onnx", "onnxscript", "safetensors"),
        "dicom": ("pydicom", "pylibjpeg", "openjpeg", "jpeg_ls", "imagecodecs"),
        "appliance": (
            "pynetdicom",
            "highdicom",
            "pydantic",
            "starlette",
            "uvicorn",
            "h11",
            "jinja2",
            "python_multipart",
            "prometheus_client",
            "requests",
            "urllib3",
            "cryptography",
        ),
        "openvino": ("openvino",),
        "quantize": ("nncf", "openvino"),
        "tensorrt": ("tensorrt", *CUDA),
        "tensorrt-rtx": ("tensorrt_rtx", *CUDA),
        "cuda": CUDA,
    }
)
"""Extra -> import names of what it installs. (`cuda` also replaces onnxruntime, under the same import name.)"""


def is_installed(package: str) -> bool:
    """Whether a package, by import name, could be imported; it is not."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a dotted name, the parent is missing
        return False


def absent(*extras: str) -> tuple[str, ...]:
    """Import names of these extras' packages that are not installed, each once. `extras`: keys of EXTRAS."""
    names = dict.fromkeys(package for extra in extras for package in EXTRAS[extra])
    return tuple(name for name in names if not is_installed(name))


def require(*extras: str, user: str = "this command") -> None:
    """Raises BackendUnavailable where packages of these extras are missing. `user`: subject of the message."""
    if missing := absent(*extras):
        raise BackendUnavailable(lacks(user, missing, *extras))


def lacks(user: str, missing: Sequence[str], *extras: str) -> str:
    """The message for packages (import names) that `user` needs, with the command that installs these extras."""
    return f"{user} needs {', '.join(missing)}, which this Python lacks. Install with: {install_command(*extras)}"


def refusal(error: ModuleNotFoundError, *, user: str = "this") -> BackendUnavailable | None:
    """The refusal for an import that failed because an extra is not installed; None for every other failure.

    A package that is installed and lacks something itself is no missing extra. `user`: subject of the message.
    """
    extras = [extra for extra in EXTRAS if any(_explains(package, error.name or "") for package in absent(extra))]
    if not extras:
        return None
    return BackendUnavailable(lacks(user, [str(error.name)], *extras[:1]))


def _explains(package: str, name: str) -> bool:
    """Whether the import of `name` fails where `package` is missing."""
    return f"{name}.".startswith(f"{package}.") or package.startswith(f"{name}.")


def install_command(*extras: str) -> str:
    """The shell command that adds these extras to this copy, for this Python. `extras`: keys of EXTRAS; at least one.

    For `cuda` it goes on with the exchange of onnxruntime. Where the folder or file that this copy was installed from
    is gone, a note behind the command says so.
    """
    suffix, origin = f"[{','.join(extras)}]", _origin()
    path = _local_path(origin) if origin else None
    requirement = _requirement(origin, suffix) if origin else shlex.quote(NAME + suffix)
    command = f"{_pip()} install {requirement}"
    command += f" && {exchange_command()}" if "cuda" in extras else ""
    gone = f" ({path}, where this copy came from, is gone: name another checkout or wheel of it)"
    return f"{command}{'' if path is None or path.exists() else gone}"


def exchange_command() -> str:
    """The shell command that puts onnxruntime-gpu, which also runs on CPUs, in the place of onnxruntime.

    The two packages hold the same files: of two installed ones the last wins, and removing one damages the other.
    """
    both = "onnxruntime onnxruntime-gpu"
    return f"{_pip()} uninstall -y {both} && {_pip()} install 'onnxruntime-gpu[cuda,cudnn]'"


def _pip() -> str:
    return f"{shlex.quote(sys.executable)} -m pip" if sys.executable else "pip"


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """Where this copy was installed from: what is used of the record of PEP 610."""

    url: str
    editable: bool = False
    repository: tuple[str, str] | None = None
    """Version control system and commit; None for what is in none."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Of an archive: algorithm -> hexadecimal digits."""
    subdirectory: str = ""


def _origin() -> _Origin | None:
    """By the record of PEP 610, or as such a record has it for a checkout; None where the copy came from an index,
    since PEP 610 asks for a record wherever an index was not asked."""
    from importlib.metadata import PackageNotFoundError, distribution

    if IN_CHECKOUT:  # an editable install, or none: beside it metadata are what a build left there
        return _Origin(url=TREE.as_uri(), editable=True)
    try:
        record = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # somebody copied the packages
        return _Origin(url="file:///unknown")
    return _read_origin(json.loads(record)) if record else None


def _read_origin(record: Any) -> _Origin:
    """`record`: the JSON of PEP 610, which may hold more keys than are used here."""
    vcs, archive = record.get("vcs_info"), record.get("archive_info", {})
    # `hashes` is the key of today, `hash` ("sha256=...") the one of PEP 610 as it was accepted
    name, equals, value = archive.get("hash", "").partition("=")
    hashes = archive.get("hashes") or ({name: value} if equals else {})
    return _Origin(
        url=record["url"],
        editable=bool(record.get("dir_info", {}).get("editable")),
        repository=(vcs["vcs"], vcs["commit_id"]) if vcs else None,
        hashes={str(name): str(value) for name, value in hashes.items()},
        subdirectory=record.get("subdirectory", ""),
    )


def _requirement(origin: _Origin, suffix: str) -> str:
    """What pip is to install, quoted for a POSIX shell: a path, or else a direct reference (PEP 440, PEP 508)."""
    path = _local_path(origin)
    if path is not None and origin.editable:
        return f"-e {shlex.quote(f'{path}{suffix}')}"
    if path is not None and ";" not in str(path):  # pip takes what follows for an environment marker
        return shlex.quote(f"{path}{suffix}")
    return shlex.quote(f"{NAME}{suffix} @ {_direct_reference(origin)}")


def _local_path(origin: _Origin) -> Path | None:
    """The folder or archive of a `file:` URL; None for other URLs and for what lies within an archive or repository."""
    parts = urlsplit(origin.url)
    local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    return Path(unquote(parts.path)) if local and not origin.repository and not origin.subdirectory else None


def _direct_reference(origin: _Origin) -> str:
    """The URL with what pins it to this copy: the commit of a repository, the hash of an archive."""
    url = urldefrag(origin.url).url
    if origin.repository:
        vcs, commit = origin.repository
        # pip before 24.1 takes git+file: URLs with a host only
        url = f"{vcs}+{url.replace('file:///', 'file://localhost/', 1)}@{commit}"
    fragments = [f"{name}={value}" for name, value in origin.hashes.items()][:1]
    fragments += [f"subdirectory={origin.subdirectory}"] if origin.subdirectory else []
    # pip records some paths as they are, and reads a reference up to the first space
    return quote(url, safe=URL_CHARACTERS) + ("#" + "&".join(fragments) if fragments else "")


def documentation() -> Path:
    """The folder with README.md, docs/, packaging/ and examples/ of this copy.

    In a copy from which somebody removed them it is where they would be.
    """
    from importlib.metadata import PackageNotFoundError, files

    if IN_CHECKOUT:
        return TREE
    try:
        listed = files(NAME) or []
    except PackageNotFoundError:
        listed = []
    readme = next((file for file in listed if file.as_posix().endswith(f"{DOCUMENTATION}/README.md")), None)
    return Path(readme.locate()).resolve().parent if readme else Path(sys.prefix, DOCUMENTATION)


def page(name: str) -> Path:
    """Where a page of the documentation lies. `name`: as in docs/, such as "gate.md"."""
    return documentation() / "docs" / name


def quoted(word: str | Path) -> str:
    """One word for bash, zsh or ksh that stands for `word` and nothing else, on one line and printable.

    A path that could be taken for an option (-x.pt) gets ./ before it.
    Source: POSIX.1-2024 Shell Command Language, 2.2 "Quoting" (single quotes and dollar-single-quotes).
    """
    text = f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_escaped, os.fsencode(text)))}'"


def _escaped(byte: int) -> str:
    """A byte between dollar-single-quotes; in octal, of which a shell takes three digits and no more."""
    return chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in " ./_-") else f"\\{byte:03o}"
