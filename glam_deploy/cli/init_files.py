"""The files of `glam-deploy init`: the templates in packaging/ with the paths, ports and user of an installation."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.errors import UsageError

PRIVATE, PUBLIC = 0o600, 0o644
_STATE = Path("/var/lib")
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
_TEST_PACS = "orthanc-data"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A PACS: AE title, address and port."""

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user of the service."""

    name: str
    group: str
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What the templates get; all paths are absolute."""

    folder: Path
    data: Path
    bundle: Path
    program: tuple[str, ...]
    """The command glam-deploy."""
    account: Account
    pacs: Peer
    port: int
    web_port: int
    pacs_web_port: int

    @property
    def config(self) -> Path:
        return self.folder / "glam.toml"

    @property
    def test_pacs_data(self) -> Path:
        return self.folder / _TEST_PACS


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file to write."""

    name: str
    text: str
    mode: int = PUBLIC


def rendered(templates: Path, made: Installation, token: str) -> Iterator[NewFile]:
    """All files of an installation. Raises UsageError if a template is missing."""
    yield NewFile(name="glam.toml", text=_configuration(_read(templates, "glam.toml"), made))
    yield NewFile(name="web.token", text=f"{token}\n", mode=PRIVATE)
    yield NewFile(name="glam-deploy.service", text=_unit(_read(templates, "glam-deploy.service"), made))
    yield NewFile(name="compose.yaml", text=_compose(_read(templates, "compose.yaml"), made))
    yield NewFile(name="orthanc.json", text=_orthanc(_read(templates, "orthanc.json"), made))


def _read(templates: Path, name: str) -> str:
    try:
        return (templates / name).read_text("utf-8")
    except OSError as error:
        raise UsageError(
            f"the template {templates / name} cannot be read ({error.strerror}): install glam-deploy again"
        ) from error


def _configuration(text: str, made: Installation) -> str:
    """The TOML text with other values; comments stay."""
    pacs = made.pacs
    senders = f"    {{ ae_title = {_toml(pacs.ae_title)}, hosts = [{_toml(pacs.host)}] }},"
    text = re.sub(r'^    \{ ae_title = "PACS".*$', lambda _: senders, text, count=1, flags=re.MULTILINE)
    values: Mapping[str, Mapping[str, object]] = {
        "": {"data": str(made.data)},
        "receive": {"port": made.port},
        "web": {"port": made.web_port},
        "worker": {"bundle": str(made.bundle)},
        "targets": {"ae_title": pacs.ae_title, "host": pacs.host, "port": pacs.port},
    }
    for section, keys in values.items():
        for key, value in keys.items():
            text = _with_value(text, section, key, value)
    return text


def _with_value(text: str, section: str, key: str, value: object) -> str:
    """Set a key of a table of the template; the rest of its line stays."""
    found, lines = "", []
    for line in text.splitlines(keepends=True):
        if header := re.match(r"\[+(\w+)\]+", line):
            found = header[1]
        if found == section and (old := re.match(rf"{key} = (\"[^\"]*\"|\d+)", line)):
            line = f"{key} = {_toml(value)}{line[old.end() :]}"  # noqa: PLW2901
            key = "\0"
        lines.append(line)
    assert key == "\0", f"the template lacks {section}.{key}"
    return "".join(lines)


def _toml(value: object) -> str:
    """A string or number; TOML's basic strings have JSON's escapes."""
    return json.dumps(value, ensure_ascii=False)


def _unit(text: str, made: Installation) -> str:
    command = " ".join(map(_systemd_word, made.program))
    config = _systemd_word(str(made.config))
    used = (made.folder, made.data, made.bundle, Path(made.program[0]))
    values = {
        "ExecStartPre": f"-{command} check-config --config {config}",
        "ExecStart": f"{command} serve --config {config}",
        "User": made.account.name,
        "Group": made.account.group,
        "ProtectHome": "read-only" if _any_below(used, _HOMES) else "yes",
        "PrivateTmp": "no" if _any_below(used, _TEMPORARY) else "yes",
    }
    for key, value in values.items():
        text = re.sub(rf"^{key}=.*$", lambda _, line=f"{key}={value}": line, text, flags=re.MULTILINE)  # type: ignore[misc]
    state = f"StateDirectory={made.data.name}\nStateDirectoryMode=0700"
    place = state if made.data.parent == _STATE else f"ReadWritePaths={_systemd_path(made.data)}"
    return re.sub(r"^StateDirectory=.*\nStateDirectoryMode=.*$", lambda _: place, text, flags=re.MULTILINE)


def _any_below(paths: tuple[Path, ...], folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _systemd_word(word: str) -> str:
    """A word of a command line in a unit, where a dollar is one of a variable (systemd.service(5))."""
    return _quoted(word.replace("$", "$$"))


def _systemd_path(path: Path) -> str:
    """A path in a list of a unit, where a dollar is a dollar (systemd.exec(5))."""
    return _quoted(str(path))


def _quoted(word: str) -> str:
    """A word with its percent signs, backslashes and quotation marks (systemd.unit(5), systemd.syntax(7))."""
    word = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"' if re.search(r"[\s'\"\\;]", word) else word


def _compose(text: str, made: Installation) -> str:
    """The template's paths and user; `$` begins a variable there, and is doubled."""
    changes = {
        "/etc/glam-deploy": str(made.folder),
        "/srv/glam/bundle": str(made.bundle),
        "/var/lib/glam-deploy-test-pacs": str(made.test_pacs_data),
        "/var/lib/glam-deploy": str(made.data),
        "10001:10001": f"{made.account.uid}:{made.account.gid}",
    }
    pattern = "|".join(sorted(map(re.escape, changes), key=len, reverse=True))
    return re.sub(pattern, lambda found: json.dumps(changes[found[0]].replace("$", "$$"))[1:-1], text)


def _orthanc(text: str, made: Installation) -> str:
    settings = json.loads(text) | {
        "StorageDirectory": str(made.test_pacs_data),
        "IndexDirectory": str(made.test_pacs_data),
        "HttpPort": made.pacs_web_port,
        "DicomAet": made.pacs.ae_title,
        "DicomPort": made.pacs.port,
    }
    settings["DicomModalities"]["glam"]["Port"] = made.port
    return json.dumps(settings, indent=2) + "\n"
