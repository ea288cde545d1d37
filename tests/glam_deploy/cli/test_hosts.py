"""Hosts of other nodes: what `check-config` refuses, and what `doctor` says of a name that has no address."""

from pathlib import Path

import pytest
from support.commands import Cli

from glam_deploy.appliance.config import Config, Target, parse_config
from glam_deploy.cli.doctor_findings import FAILS, Finding
from glam_deploy.cli.doctor_network import archive_findings, target_findings
from glam_deploy.cli.doctor_notify import notify_findings

HEAD = 'license_acknowledged = true\ndata = "d"\nworker = {{ bundle = "b" }}\nweb = {{ token_file = "t" }}\n'
TARGET = '[[targets]]\nname = "a"\nae_title = "A"\nport = 104\nhost = "{}"\n'
FETCH = '[fetch]\nae_title = "A"\nport = 104\nhost = "{}"\n'
HL7 = '[[notify]]\nname = "a"\nkind = "hl7"\nplain = true\nport = 2575\nhost = "{}"\n'
MAIL = '[[notify]]\nname = "a"\nkind = "email"\nsender = "a@b.example"\nrecipients = ["a@b.example"]\nhost = "{}"\n'
STOW = '[[targets]]\nname = "a"\nstow_url = "https://{}/dicom-web"\n'
WEBHOOK = '[[notify]]\nname = "a"\nkind = "webhook"\nsecret_file = "s"\nurl = "https://{}/hook"\n'


@pytest.mark.parametrize("table", [TARGET, FETCH, HL7, MAIL])
@pytest.mark.parametrize("host", ["http://pacs", "pacs:104", "a b", "", "10.1.2.3/24"])
def test_what_is_no_host(cli: Cli, tmp_path: Path, table: str, host: str) -> None:
    (tmp_path / "glam.toml").write_text((HEAD + table).format(host))
    said = cli("check-config", "--config", tmp_path / "glam.toml")
    assert said.code == 2
    assert "host: expected a host name or an address, as pacs.example or 10.1.2.3, without http:// and port" in said.err


@pytest.mark.parametrize("host", ["pacs", "pacs.example", "pacs_1.example.", "10.1.2.3", "fe80::1%eth0", "::1"])
def test_what_is_one(host: str) -> None:
    assert Target(name="a", ae_title="A", port=104, host=host).host == host


def found(config: Config) -> list[Finding]:
    return [*target_findings(config, {}), *archive_findings(config, {}), *notify_findings(config, {})]


@pytest.mark.parametrize("table", [TARGET, STOW, FETCH, HL7, MAIL, WEBHOOK])
def test_a_name_without_an_address(tmp_path: Path, table: str) -> None:
    """RFC 2606: there is none."""
    config = parse_config((HEAD + table).format("nosuch.invalid"), folder=tmp_path)
    (finding,) = (each for each in found(config) if each.state == FAILS)
    assert "the host nosuch.invalid is not known here" in finding.found
    assert "getent hosts nosuch.invalid" in finding.remedy
