"""`check-config`: what a person is told about a configuration, and the example that is shipped."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.bundles import unprivileged
from support.commands import ROOT, Cli
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.appliance.config import parse_config
from glam_deploy.cli import check_config
from glam_deploy.cli.check_config import missing_files
from glam_deploy.ports import may_listen_at

EXAMPLE = ROOT / "packaging/glam.toml"
UNIT = ROOT / "packaging/glam-deploy.service"
WITHOUT_WEB = 'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n'
MINIMAL = WITHOUT_WEB + '[web]\ntoken_file = "web.token"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "glam.toml"
    path.write_text(text)
    return path


def test_tells_what_would_be_done(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL + '[receive]\nsenders = [{ ae_title = "MG1", hosts = ["10.1.2.0/24"] }]\n')
    said = cli("check-config", "--config", path)
    assert (said.code, said.err) == (1, "")
    for told in (f"{tmp_path}/data", "GLAM at 127.0.0.1:11112", "MG1 from 10.1.2.0/24", "seg, cad_sr, sr, sc"):
        assert told in said.out
    assert f"MISSING    worker.bundle = {tmp_path}/bundle" in said.out
    assert "is valid, but 2 missing, without which" in said.out
    assert not (tmp_path / "data").exists(), "it starts nothing"


def test_a_folder_that_is_not_mounted_keeps_nothing_from_starting(cli: Cli, tmp_path: Path) -> None:
    """The unit starts `serve` only if this command succeeds; deliveries and copies wait for the disk."""
    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "web.token").touch(0o600)
    (tmp_path / "web.token").write_text("a" * 64)
    away = '[[targets]]\nname = "disk"\nfolder = "away/results"\n[standby]\nfolder = "away/copy"\n'
    said = cli("check-config", "--config", written(tmp_path, MINIMAL + away))
    assert said.code == 0
    for key, name in (("targets.0.folder", "results"), ("standby.folder", "copy")):
        assert f"note       {key} = {tmp_path}/away/{name} does not exist: mount its disk" in said.out
    assert "MISSING" not in said.out


@pytest.mark.parametrize(
    ("token", "mode", "told"), [("short", 0o600, "has 5 characters"), ("a" * 64, 0o644, "mode 0644")]
)
def test_a_token_that_serve_would_refuse_is_refused(cli: Cli, tmp_path: Path, token: str, mode: int, told: str) -> None:
    (tmp_path / "web.token").write_text(token)
    (tmp_path / "web.token").chmod(mode)
    said = cli("check-config", "--config", written(tmp_path, MINIMAL))
    assert said.code == 2
    assert told in said.err
    assert "is valid" not in said.out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[receive]\nport = false\n", "nothing can arrive: receive.port, receive.tls and web.stow are off"),
        (
            "[results]\nseg = false\ncad_sr = false\nsr = false\nsc = false\n[[targets]]\nname='a'\nfolder='away'\n",
            "the targets get nothing: every kind of [results] is off",
        ),
        (
            "[dispatch]\nfirst_retry_s = 100\nlongest_retry_s = 5\n",
            "dispatch.first_retry_s = 100 is above longest_retry_s = 5",
        ),
        ("", None),
    ],
)
def test_settings_without_effect_are_told(cli: Cli, tmp_path: Path, more: str, told: str | None) -> None:
    said = cli("check-config", "--config", written(tmp_path, MINIMAL + more))
    assert "is valid" in said.out
    assert f"note       {told}" in said.out if told else "note " not in said.out


ACCESS = (
    WITHOUT_WEB
    + """
[web]
public_url = "https://pacs.example/glam"
trusted_proxies = ["10.0.0.7"]
[web.oidc]
issuer = "https://login.example"
client_id = "glam"
viewer = ["radiology"]
"""
)


def test_what_to_register_at_the_login_provider_is_told(cli: Cli, tmp_path: Path) -> None:
    said = cli("check-config", "--config", written(tmp_path, ACCESS))
    assert "in browsers https://pacs.example/glam/, by 10.0.0.7/32" in said.out
    assert "viewer: roles of https://login.example has radiology" in said.out
    assert "operator: roles of https://login.example has no value: nobody" in said.out
    assert "register there: redirect URI https://pacs.example/glam/login/callback" in said.out
    assert "register there: post-logout redirect URI https://pacs.example/glam/login" in said.out


def test_a_public_url_without_encryption_is_refused(cli: Cli, tmp_path: Path) -> None:
    said = cli("check-config", "--config", written(tmp_path, ACCESS.replace("https://pacs", "http://pacs")))
    assert said.code == 2
    assert "web.public_url is http://pacs.example/glam" in said.err and "https:// URL" in said.err


def test_a_client_secret_that_everybody_can_read_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o644)
    said = cli("check-config", "--config", written(tmp_path, ACCESS + 'client_secret_file = "secret"'))
    assert said.code == 2
    assert "mode 0644" in said.err and "chmod 0600" in said.err


def test_nothing_is_missing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text("{}")
    (tmp_path / "web.token").write_text("t" * 32)
    (tmp_path / "web.token").chmod(0o600)
    path = written(tmp_path, MINIMAL)
    for words in ((), ("--json",)):
        assert cli("check-config", "--config", path, *words).code == 0
    (tmp_path / "bundle/manifest.json").unlink()
    for words in ((), ("--json",)):
        assert cli("check-config", "--config", path, *words).code == 1
    said = cli("check-config", "--config", path)
    assert f"MISSING    worker.bundle = {tmp_path}/bundle: it holds neither manifest.json nor ensemble.json" in said.out
    (tmp_path / "bundle").rmdir()
    for words in ((), ("--json",)):
        assert cli("check-config", "--config", path, *words).code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_file_out_of_reach_is_named_as_such(tmp_path: Path) -> None:
    config = parse_config(MINIMAL, folder=tmp_path / "closed")
    (tmp_path / "closed").mkdir(mode=0o700)
    with unprivileged():
        found = [*missing_files(config)]
    told = "it cannot be reached (Permission denied): run this as the user of the appliance"
    assert found == [
        f"MISSING    {key} = {tmp_path}/closed/{name}: {told}"
        for key, name in (("web.token_file", "web.token"), ("worker.bundle", "bundle"))
    ]


@pytest.mark.parametrize("name", ["etc", "file"])
def test_data_that_is_something_else_counts_as_missing(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").touch()
    (tmp_path / "file").touch()
    path = written(tmp_path, MINIMAL.replace('data = "data"', f'data = "{name}"'))
    said = cli("check-config", "--config", path)
    told = {"etc": "it holds 'passwd' and no state.db", "file": "it is not a folder"}[name]
    assert said.code == 1
    assert f"MISSING    data = {tmp_path}/{name}: {told}" in said.out and "an empty folder" in said.out
    assert cli("check-config", "--json", "--config", path).code == 1


def test_a_port_that_this_user_may_not_listen_at_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_config, "may_listen_at", lambda port: port != 104)
    said = cli("check-config", "--config", written(tmp_path, MINIMAL + "[receive]\nport = 104\n"))
    assert "PORT       receive.port = 104: this user may not listen at it" in said.out
    assert "CAP_NET_BIND_SERVICE" in said.out and "web.port =" not in said.out


@pytest.mark.parametrize(
    ("port", "first", "capabilities", "allowed"),
    [
        (104, "1024", "0000000000000000", False),
        (1024, "1024", "0000000000000000", True),
        (104, "104", "0000000000000000", True),
        (104, "1024", "0000000000000400", True),  # capabilities(7): bit 10 is CAP_NET_BIND_SERVICE
        (104, "1024", "000001fffffffbff", False),
    ],
)
def test_who_may_listen_at_a_port(tmp_path: Path, port: int, first: str, capabilities: str, allowed: bool) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapPrm:\tffff\nCapEff:\t{capabilities}\n")
    (tmp_path / "first").write_text(f"{first}\n")
    found = may_listen_at(port, status=tmp_path / "status", first_unprivileged=tmp_path / "first")
    assert found is allowed


def test_rules_for_senders_that_may_not_send_are_named(cli: Cli, tmp_path: Path) -> None:
    rules = """
[receive]
senders = [{ ae_title = "MG1", hosts = ["10.1.2.3"] }]
[priority]
stat_senders = ["MG1", "mg1", "STAT"]
[fetch]
ae_title = "ARCHIVE"
host = "10.1.2.4"
port = 104
[[routes]]
calling_ae = ["mg1", "ARCHIVE", "MG2"]
targets = []
"""
    said = cli("check-config", "--config", written(tmp_path, MINIMAL + rules))
    named = re.findall(r"^note       (\S+) names (\S+), which is in no", said.out, re.MULTILINE)
    urgent, route = "priority.stat_senders", "routes.0.calling_ae"
    assert named == [(urgent, "mg1"), (urgent, "STAT"), (route, "MG2")], said.err


def test_tells_that_nobody_may_send_and_nothing_is_sent(cli: Cli, tmp_path: Path) -> None:
    said = cli("check-config", "--config", written(tmp_path, MINIMAL))
    assert "sender     none: every DICOM association is rejected" in said.out
    assert "target     none: results stay in the data folder" in said.out


def test_tells_who_is_told_of_what_and_which_secret_is_missing(cli: Cli, tmp_path: Path) -> None:
    entry = 'name = "ris"\nkind = "webhook"\nurl = "https://ris.example/glam"\nsecret_file = "ris.secret"\n'
    text = f'{MINIMAL}[results]\ntriage_threshold = 0.6\n[[notify]]\n{entry}events = ["failed"]\n'
    said = cli("check-config", "--config", written(tmp_path, text))
    assert "notify     ris: webhook to https://ris.example/glam, failed" in said.out
    assert f"MISSING    notify.0.secret_file = {tmp_path}/ris.secret" in said.out
    assert "triage flag at a malignant score of 0.6" in said.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("license_acknowledged = false", "license_acknowledged: expected true, without quotation marks, by which you "),
        ('license_acknowledged = "true"', "the weights are for research only and have a licence of their own"),
        ('data = ""', "data: expected a path (it is '')"),
        ('[worker]\nbundle = "b"\nengine = "tensorflow"', "worker.engine: expected one of auto, onnx, "),
        ("[receive]\nport = 8042", "receive.port and web.port are both 8042: expected different ports"),
        ("receive = 3", "receive: expected a table (it is 3)"),
        ('[receive]\nport = "11112"', "receive.port: expected a number, without quotation marks (it is '11112')"),
        ('[[targets]]\nname = "a"\nport = "104"', "targets.0.port: expected a number, without quotation marks"),
        ('[web]\nstow = "false"', "web.stow: expected true or false, without quotation marks (it is 'false')"),
        ('[dispatch]\ntimeout_s = "30"', "dispatch.timeout_s: expected a number, without quotation marks"),
        ("[assemble]\nquiet_s = 300\ncap_s = 60", "assemble: quiet_s is 300 and cap_s 60, so that quiet_s never"),
        ('[[targets]]\nname = "PACS 1"', "targets.0.name: expected 1 to 32 of a-z, 0-9 and hyphen (it is 'PACS 1')"),
        ('[receive]\nae_title = "A\\\\B"', "receive.ae_title: expected 1 to 16 ASCII characters, without backslash"),
        ('[web]\ntoken = "t"', "web.token: is not a key of this table: see docs/appliance.md (its value is not shown"),
        ("[dispatch]\nfirst_retry_s = 1e400", "dispatch.first_retry_s: Input should be a finite number (it is inf)"),
        ("[retain]\nresults_days = nan", "retain.results_days: Input should be a finite number (it is nan)"),
        ("[dispatch]\nattempts = true", "dispatch.attempts: expected a number (it is True)"),
        ("[assemble]\nquiet_s = false", "assemble.quiet_s: expected a number (it is False)"),
        ("[receive]\nport = true", "receive.port: expected a number or false (it is True)"),
        ('data = "a\\u0000b"', "data: has a NUL character: remove it (it is 'a\\x00b')"),
        ('[bundle]\ntrusted_keys = ["a\\u0000"]', "bundle.trusted_keys: has a NUL character"),
        ('data = "d"\n[standby]\nfolder = "d/copy"', "standby.folder: lies in the data folder"),
        ('data = "d"\n[standby]\nfolder = "x/../d"', "standby.folder: lies in the data folder"),
        ('data = "d/e"\n[standby]\nfolder = "d"', "expected a folder apart"),
        (
            '[receive]\nsenders = [{ ae_title = "A", hosts = ["127.0.0.1/8"] }]',
            "hosts.0: has bits set behind the length of the network: expected 127.0.0.0/8, or the address 127.0.0.1",
        ),
        (
            '[receive]\nsenders = [{ ae_title = "A", hosts = ["::ffff:10.1.2.3/120"] }]',
            "hosts.0: has bits set behind the length of the network: expected 10.1.2.0/24, or the address 10.1.2.3",
        ),
        (
            '[receive]\nsenders = [{ ae_title = "A", hosts = ["pacs"] }]',
            "expected an address such as 10.1.2.3, or a network such as 10.1.2.0/24 (it is 'pacs')",
        ),
    ],
)
def test_wrong_values_are_told_in_words(cli: Cli, tmp_path: Path, text: str, told: str) -> None:
    required = {"license_acknowledged": "true", "data": '"d"', "worker": '{ bundle = "b" }'}
    head = [f"{key} = {value}" for key, value in required.items() if not re.search(rf"^\[?{key}\b", text, re.MULTILINE)]
    said = cli("check-config", "--config", written(tmp_path, "\n".join([*head, text])))
    assert said.code == 2
    assert told in said.err


@pytest.mark.parametrize(
    "text",
    [
        '[fetch]\nurl = "https://user:SECRETPW@pacs/dicom-web"',
        '[fetch]\nurl = "https://:SECRETPW@pacs/dicom-web"',
        '[[targets]]\nname = "a"\nstow_url = "https://:SECRETPW@pacs/dicom-web"',
        '[[notify]]\nname = "a"\nkind = "webhook"\nsecret_file = "s"\nurl = "https://:SECRETPW@ris/"',
        '[[targets]]\nname = "a"\nstow_url = "https://user:SECRETPW@pacs/dicom-web"',
        '[[notify]]\nname = "a"\nkind = "webhook"\nsecret_file = "s"\nurl = "https://user:SECRETPW@ris/"',
        '[[notify]]\nname = "a"\nkind = "webhook"\nsecret = "SECRETPW"\nurl = "https://ris/"',
        '[web]\npublic_url = "https://user:SECRETPW@pacs"',
        '[web]\npublic_url = ["https://user:SECRETPW@pacs"]',
        '[web.oidc]\nclient_id = "a"\nissuer = "https://user:SECRETPW@login"',
        '[web.oidc]\nclient_id = "a"\nissuer = "https://login"\nclient_secret = "SECRETPW"',
        '[fetch]\npassword = ["SECRETPW"]',
        'password = "SECRETPW"',
    ],
)
def test_a_secret_is_never_printed(cli: Cli, tmp_path: Path, text: str) -> None:
    head = f'license_acknowledged = true\ndata = "d"\nworker = {{ bundle = "b" }}\n{text}'
    said = cli("check-config", "--config", written(tmp_path, head))
    assert said.code == 2 and f"the configuration {tmp_path / 'glam.toml'} is wrong" in said.err
    assert "SECRETPW" not in said.out + said.err


def test_what_others_can_read_or_pretend_is_noted(cli: Cli, tmp_path: Path) -> None:
    text = (
        ACCESS.replace("10.0.0.7", "0.0.0.0/0")
        + """
[[notify]]
name = "ris"
kind = "webhook"
url = "https://ris.example/glam"
secret_file = "ris.secret"
"""
    )
    (tmp_path / "ris.secret").touch(0o600)
    path = written(tmp_path, text)
    said = cli("check-config", "--config", path)
    assert "note       web.trusted_proxies has 0.0.0.0/0, every address" in said.out
    assert "read the secret" not in said.out
    (tmp_path / "ris.secret").chmod(0o644)
    told = f"note       notify.0.secret_file = {tmp_path}/ris.secret: other users can read the secret: chmod 600"
    assert told in cli("check-config", "--config", path).out
    (tmp_path / "ris.secret").unlink()
    (tmp_path / "ris.secret").symlink_to("/dev/null")
    said = cli("check-config", "--config", path)
    assert f"MISSING    notify.0.secret_file = {tmp_path}/ris.secret: it is a pipe, socket or device" in said.out
    assert "chmod" not in said.out


def test_what_only_follows_from_another_fault_is_not_told(cli: Cli, tmp_path: Path) -> None:
    text = MINIMAL + '[receive]\nsenders = [{ ae_title = "A", hosts = ["pacs.example"] }]\n'
    said = cli("check-config", "--config", written(tmp_path, text))
    assert re.findall(r"^  (\S+?):", said.err, re.MULTILINE) == ["receive.senders.0.hosts.0"]
    said = cli("check-config", "--config", written(tmp_path, text.replace('"pacs.example"', "")))
    assert re.findall(r"^  (\S+?):", said.err, re.MULTILINE) == ["receive.senders.0.hosts"]


def test_names_every_wrong_key_at_once(cli: Cli, tmp_path: Path) -> None:
    text = """
license_acknowledged = false
data = "data"
colour = "blue"
[receive]
ae_title = "MUCH TOO LONG FOR A TITLE"
port = 70000
senders = [{ ae_title = "A", hosts = ["pacs.example"] }]
[worker]
bundle = "bundle"
patches = 9
[[targets]]
name = "pacs"
"""
    said = cli("check-config", "--config", written(tmp_path, text))
    assert said.code == 2
    named = set(re.findall(r"^  (\S+?):", said.err, re.MULTILINE))
    assert named >= {
        "license_acknowledged",
        "colour",
        "receive.ae_title",
        "receive.port",
        "worker.patches",
        "targets.0",
    }
    assert "(it is 70000)" in said.err
    assert "give either ae_title, host and port, or stow_url" in said.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WITHOUT_WEB, "neither token_file nor oidc nor tls with an authority"),
        (MINIMAL + 'host = "0.0.0.0"\n', "or use loopback"),
    ],
)
def test_a_status_page_for_everybody_is_refused(cli: Cli, tmp_path: Path, text: str, told: str) -> None:
    said = cli("check-config", "--config", written(tmp_path, text))
    assert said.code == 2
    assert told in said.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data = ", "not valid TOML"),
        (f"data = {'[' * 99_999}", "is not valid TOML: lists or tables are nested more than 32"),
        (".".join("a" * 50_000) + " = 1", "has more than 32 parts joined by dots"),
        (f"[results]\ntriage_threshold = {'1' * 99_999}", "an integer has more than 64 bits"),
        (None, "cannot be read (No such file or directory)"),
        ("license_acknowledged = true  # Pr\udcfcfstand", "it is not UTF-8 text (byte 33), save it as UTF-8"),
        ("\udcff\udcfel\0i\0", "it is not UTF-8 text (byte 0), save it as UTF-8"),
    ],
)
def test_file_that_is_no_configuration(cli: Cli, tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "glam.toml"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    said = cli("check-config", "--config", path)
    assert said.code == 2
    assert told in said.err and f"the configuration {path} " in said.err and "Traceback" not in said.err


def test_a_file_of_windows(cli: Cli, tmp_path: Path) -> None:
    """Editors there put the mark of the byte order before UTF-8, and end lines with two characters."""
    path = written(tmp_path, MINIMAL)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert f"{path} is valid" in cli("check-config", "--config", path).out


def test_json_has_every_key(cli: Cli, tmp_path: Path) -> None:
    said = cli("check-config", "--json", "--config", written(tmp_path, MINIMAL))
    values = json.loads(said.out)
    assert values["worker"] | {"bundle": f"{tmp_path}/bundle", "attempts": 3} == values["worker"]
    assert values["assemble"] == {"quiet_s": 60, "cap_s": 1800, "four_views": True}


def test_shipped_example_is_in_order(cli: Cli) -> None:
    said = cli("check-config", "--config", EXAMPLE)
    assert (said.code, said.err) == (1, ""), "its bundle is not here"


def test_unit_runs_commands_that_are_there_and_writes_where_the_example_says(cli: Cli) -> None:
    unit = UNIT.read_text()
    commands = re.findall(r"^Exec\w+=\S+/glam-deploy (\S+) --config (\S+)$", unit, re.MULTILINE)
    assert commands == [(name, "/etc/glam-deploy/glam.toml") for name in ("check-config", "serve")]
    state = re.search(r"^StateDirectory=(\S+)$", unit, re.MULTILINE)
    assert state
    values = json.loads(cli("check-config", "--json", "--config", EXAMPLE).out)
    assert values["data"] == f"/var/lib/{state[1]}"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    # the program is not installed where the unit says
    unit = re.sub(r"^(Exec\w+)=\S+ .*$", r"\1=/bin/true", UNIT.read_text(), flags=re.MULTILINE)
    (tmp_path / UNIT.name).write_text(unit)
    command = ["systemd-analyze", "verify", tmp_path / UNIT.name]
    told = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    assert [line for line in told.splitlines() if UNIT.name in line] == []
