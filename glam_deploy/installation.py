"""This installation of glam-deploy: its extras, the command that installs one, and the folder of its documentation.

An extra is a set of optional requirements (core metadata 2.1, Provides-Extra; setup.py defines them). The command
depends on the origin of this installation, which pip records in `direct_url.json` (PEP 610; PyPA specification
"Recording the Direct URL Origin of installed distributions"). The name "glam-deploy" alone is printed only if there is
no such record, because then the origin is an index.
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

from glam_deploy.errors import BackendUnavailable, UsageError

NAME = "glam-deploy"
TREE = Path(__file__).parents[1]
"""The checkout from which this installation runs, else the folder of all installed packages."""
IN_CHECKOUT = (TREE / "setup.py").is_file()
URL_CHARACTERS = ":/?#[]@!$&'()*+,;=%~"
"""Reserved characters of RFC 3986 (2.2), and the percent sign of encoded ones."""
DOCUMENTATION = "share/doc/glam-deploy"
"""Folder of README.md, docs/, packaging/ and examples/ from a wheel, relative to the installation prefix."""

CUDA = ("cuda.core", "cuda.bindings")

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "export": ("torch", "onnx", "onnxscript", "safetensors"),
        "dicom": ("pydicom", "pylibjpeg", "openjpeg", "jpeg_ls", "imagecodecs", "highdicom"),
        "appliance": (
            "pynetdicom",
            "pydantic",
            "starlette",
            "uvicorn",
            "h11",
            "jinja2",
            "python_multipart",
            "prometheus_client",
            "requests",
            "urllib3",
            "authlib",
            "joserfc",
            "cryptography",
        ),
        "sign": ("cryptography",),
        "openvino": ("openvino",),
        "quantize": ("nncf", "openvino"),
        "tensorrt": ("tensorrt", *CUDA),
        "tensorrt-rtx": ("tensorrt_rtx", *CUDA),
        "cuda": CUDA,
        "ray": ("ray", "pyarrow", "fsspec", "aiohttp"),
    }
)
"""Extra -> import names of its packages. (`cuda` also replaces onnxruntime, with the same import name.)"""


def is_installed(package: str) -> bool:
    """Whether a package can be found by its import name; does not import it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


def absent(*extras: str) -> tuple[str, ...]:
    """Import names of packages of these extras that are not installed, without repeats. `extras`: keys of EXTRAS."""
    names = dict.fromkeys(package for extra in extras for package in EXTRAS[extra])
    return tuple(name for name in names if not is_installed(name))


def require(*extras: str, user: str = "this command") -> None:
    """Raise BackendUnavailable if packages of these extras are missing. `user`: subject of the message."""
    if missing := absent(*extras):
        raise BackendUnavailable(lacks(user, missing, *extras))


def lacks(user: str, missing: Sequence[str], *extras: str) -> str:
    """Message about missing packages (import names) that `user` needs, with the command that installs these extras."""
    return f"{user} needs {', '.join(missing)}, which this Python lacks. Install with: {install_command(*extras)}"


SYSTEMS = {"win32": "Windows", "darwin": "macOS"}
"""`sys.platform` -> name, of systems other than Linux that parts of glam-deploy run on."""


def require_linux(user: str, remedy: str | None = None) -> None:
    """Raises UsageError unless this is Linux. `user`: subject of the message; `remedy`: another one than a machine."""
    if sys.platform == "linux":
        return
    linux = "run it on a Linux machine or in a Linux container" + (", or in WSL 2" if sys.platform == "win32" else "")
    system = SYSTEMS.get(sys.platform, sys.platform)
    raise UsageError(f"{user} needs Linux, and this system is {system}: {remedy or linux}")


def require_current_folder() -> None:
    """Raises UsageError if the current folder was deleted: relative paths, and some libraries, then cannot work."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise UsageError("the current folder does not exist any more: change to another one with cd") from error


def refusal(error: ModuleNotFoundError, *, user: str = "this") -> BackendUnavailable | None:
    """BackendUnavailable for an import that failed because an extra is not installed; None for every other cause.

    An installed package without one of its own requirements is not a missing extra. `user`: subject of the message.
    """
    extras = [extra for extra in EXTRAS if any(_explains(package, error.name or "") for package in absent(extra))]
    if not extras:
        return None
    return BackendUnavailable(lacks(user, [str(error.name)], *extras[:1]))


def _explains(package: str, name: str) -> bool:
    """Whether the import of `name` fails because `package` is missing."""
    return f"{name}.".startswith(f"{package}.") or package.startswith(f"{name}.")


def install_command(*extras: str) -> str:
    """Shell command that adds extras to this installation. `extras`: keys of EXTRAS; at least one.

    For `cuda` it also replaces onnxruntime. If the folder or file from which this copy was installed no longer exists,
    a note follows the command.
    """
    suffix, origin = f"[{','.join(extras)}]", _origin()
    path = _local_path(origin) if origin else None
    requirement = _requirement(origin, suffix) if origin else shlex.quote(NAME + suffix)
    command = f"{_pip()} install {requirement}"
    command += f" && {exchange_command()}" if "cuda" in extras else ""
    gone = f" ({path}, from which this copy was installed, does not exist: name another checkout or wheel)"
    return f"{command}{gone if path and _is_gone(path) else ''}"


def package_command(*packages: str) -> str:
    """Shell command that installs packages, by their names at an index, which no extra has."""
    return f"{_pip()} install {shlex.join(packages)}"


def exchange_command() -> str:
    """Shell command that replaces onnxruntime by onnxruntime-gpu, which also runs on CPUs.

    The two packages have the same files: the one installed last overwrites the other, and removing one damages the
    other.
    """
    both = "onnxruntime onnxruntime-gpu"
    return f"{_pip()} uninstall -y {both} && {_pip()} install 'onnxruntime-gpu[cuda,cudnn]'"


def _pip() -> str:
    return f"{shlex.quote(sys.executable)} -m pip" if sys.executable else "pip"


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """Origin of this installation: the used keys of the record of PEP 610."""

    url: str
    editable: bool = False
    repository: tuple[str, str] | None = None
    """Version control system and commit; None without version control."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hashes of an archive: algorithm -> hexadecimal digits."""
    subdirectory: str = ""


def _origin() -> _Origin | None:
    """Origin by the record of PEP 610, or an equal one for a checkout.

    None if the origin is an index, because PEP 610 requires a record for every other origin.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    if IN_CHECKOUT:  # an editable installation, or none: metadata in a checkout come from a build
        return _Origin(url=TREE.as_uri(), editable=True)
    try:
        record = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # the packages were copied without their metadata
        return _Origin(url="file:///unknown")
    return _read_origin(json.loads(record)) if record else None


def _read_origin(record: Any) -> _Origin:
    """Origin of a `record`: the JSON of PEP 610, which may have more keys than are used here."""
    vcs, archive = record.get("vcs_info"), record.get("archive_info", {})
    # `hashes` is the current key, `hash` ("sha256=...") the original one of PEP 610
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
    """Requirement for pip, quoted for a POSIX shell: a path, or else a direct reference (PEP 440, PEP 508)."""
    path = _local_path(origin)
    if path is not None and origin.editable:
        return f"-e {shlex.quote(f'{path}{suffix}')}"
    if path is not None and ";" not in str(path):  # pip would parse an environment marker after the semicolon
        return shlex.quote(f"{path}{suffix}")
    return shlex.quote(f"{NAME}{suffix} @ {_direct_reference(origin)}")


def _local_path(origin: _Origin) -> Path | None:
    """The folder or archive of a `file:` URL; None for other URLs, repositories, and subdirectories of an archive."""
    parts = urlsplit(origin.url)
    local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    return Path(unquote(parts.path)) if local and not origin.repository and not origin.subdirectory else None


def _is_gone(path: Path) -> bool:
    """Whether there is nothing at the path; false if this user cannot see it, such as a folder of root."""
    try:
        return not path.exists()
    except OSError:
        return False


def _direct_reference(origin: _Origin) -> str:
    """The URL with the commit of a repository or the hash of an archive, which fixes the version."""
    url = urldefrag(origin.url).url
    if origin.repository:
        vcs, commit = origin.repository
        # pip before 24.1 accepts git+file: URLs only with a host
        url = f"{vcs}+{url.replace('file:///', 'file://localhost/', 1)}@{commit}"
    fragments = [f"{name}={value}" for name, value in origin.hashes.items()][:1]
    fragments += [f"subdirectory={origin.subdirectory}"] if origin.subdirectory else []
    # pip records some paths without quoting, but reads a reference only up to the first space
    return quote(url, safe=URL_CHARACTERS) + ("#" + "&".join(fragments) if fragments else "")


def documentation() -> Path:
    """The folder of README.md, docs/, packaging/ and examples/ of this installation; it may have been removed."""
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
    """Path of a page of the documentation. `name`: as in docs/, such as "gate.md"."""
    return documentation() / "docs" / name


def quoted(word: str | Path) -> str:
    """`word` quoted for bash, zsh or ksh as one word, on one line and printable.

    A path that looks like an option (-x.pt) gets the prefix ./.
    Source: POSIX.1-2024 Shell Command Language, 2.2 "Quoting" (single quotes and dollar-single-quotes).
    """
    text = f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_escaped, os.fsencode(text)))}'"


def _escaped(byte: int) -> str:
    """A byte inside dollar-single-quotes; other than plain characters in octal, of which a shell reads three digits."""
    return chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in " ./_-") else f"\\{byte:03o}"
