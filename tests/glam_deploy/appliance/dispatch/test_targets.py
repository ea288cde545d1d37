"""From a target of the configuration to a session."""

import socket
from pathlib import Path

import pytest

from glam_deploy.appliance.config import Config, Receive, Target, Tls, TlsListener, Web, Worker, parse_config
from glam_deploy.appliance.targets import DimseClient, StowClient, is_own_address, target_client
from glam_deploy.errors import PeerError, UsageError


def stow(**changes: object) -> Target:
    return Target(**{"name": "web", "stow_url": "https://pacs/dicom-web"} | changes)


def test_which_way() -> None:
    assert isinstance(target_client(stow(), 5), StowClient)
    assert isinstance(target_client(Target(name="a", ae_title="PACS", host="pacs", port=104), 5), DimseClient)


def test_a_token_is_read_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    client = StowClient(target=stow(stow_token_file=file), timeout_s=7)
    with pytest.raises(PeerError, match=r"token .*expected a file with one line"):
        client.session([])
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert client.peer().token == token
    assert client.peer().timeout_s == 7
    file.write_text("")
    with pytest.raises(PeerError, match="token"):
        client.check_reachable()


def test_user_password_and_authority(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    target = stow(stow_user="glam", stow_password_file=tmp_path / "password", stow_authority=tmp_path / "ca.crt")
    peer = StowClient(target=target, timeout_s=5).peer()
    assert (peer.user, peer.password, peer.authority) == ("glam", "secret", tmp_path / "ca.crt")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('stow_url = "ftp://pacs/dicom-web"', "expected https"),
        ('stow_url = "pacs"', "expected https"),
        ('stow_url = "https://user:word@pacs/dicom-web"', "expected https"),
        ('stow_url = "http://pacs/dicom-web"\nstow_token_file = "t"', "use https"),
        ('stow_url = "https://pacs/dicom-web"\nstow_user = "u"', "stow_password_file"),
        ('stow_url = "https://pacs/dicom-web"\ncommitment = true', "DIMSE only"),
        ('ae_title = "A"\nhost = "h"\nport = 104\nstow_token_file = "t"', "stow_url only"),
        ('ae_title = "A"\nhost = "h"', "either"),
        ('folder = "results"\nstow_url = "https://pacs/dicom-web"', "either"),
        ('folder = "results"\nport = 104', "either"),
        ('folder = "results"\ncommitment = true', "for archives"),
        ('folder = ""', "expected a path"),
        ('ae_title = "A"\nhost = "h"\nport = 104\nobjects = []', "at least 1"),
        ('ae_title = "A"\nhost = "h"\nport = 104\nobjects = ["cad-sr"]', "'cad_sr'"),
        ('ae_title = "A"\nhost = "h"\nport = 104\nobjects = ["sc", "gsps"]', "gets gsps, which .* does not make"),
    ],
)
def test_targets_that_cannot_be_meant(lines: str, told: str) -> None:
    text = f'license_acknowledged = true\ndata = "d"\n[worker]\nbundle = "b"\n[[targets]]\nname = "a"\n{lines}\n'
    with pytest.raises(UsageError, match=told):
        parse_config(text, folder=Path("/"))


def test_a_token_over_http_on_this_machine_is_allowed() -> None:
    assert stow(stow_url="http://127.0.0.1:8043/dicom-web", stow_token_file="t").stow_url


TLS = {"certificate": "a", "key": "b", "authority": "c"}


def config(*, web: bool = False) -> Config:
    return Config(
        license_acknowledged=True,
        data="data",
        worker=Worker(bundle="bundle"),
        receive=Receive(port=11112, tls=TlsListener(port=2762, **TLS)),
        web=Web(port=8042, stow=web),
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
@pytest.mark.parametrize("port", [11112, 2762])
def test_our_own_listeners(host: str, port: int) -> None:
    assert is_own_address(Target(name="a", ae_title="ANY", host=host, port=port), config())


def test_our_own_address_by_any_name() -> None:
    name = socket.gethostname()
    assert is_own_address(Target(name="a", ae_title="ANY", host=name, port=11112), config())


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 104), ("192.0.2.1", 11112), ("no-such-host.invalid", 11112)])
def test_other_nodes(host: str, port: int) -> None:
    assert not is_own_address(Target(name="a", ae_title="GLAM", host=host, port=port), config())


def test_our_own_dicomweb_service_where_there_is_one() -> None:
    ours = Target(name="a", stow_url="http://127.0.0.1:8042/dicom-web")
    assert is_own_address(ours, config(web=True))
    assert not is_own_address(ours, config())
    assert not is_own_address(Target(name="a", stow_url="https://192.0.2.1/dicom-web"), config(web=True))


def test_tls_is_no_way_round() -> None:
    assert is_own_address(Target(name="a", ae_title="ANY", host="127.0.0.1", port=2762, tls=Tls(**TLS)), config())
