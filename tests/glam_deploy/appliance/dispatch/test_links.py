"""From a target of the configuration to a session."""

from pathlib import Path

import pytest

from glam_deploy.appliance.config import Target, parse_config
from glam_deploy.appliance.dispatch.links import DimseLink, StowLink, link_to
from glam_deploy.errors import PeerError, UsageError


def stow(**changes: object) -> Target:
    return Target(**{"name": "web", "stow_url": "https://pacs/dicom-web"} | changes)


def test_which_way() -> None:
    assert isinstance(link_to(stow(), 5), StowLink)
    assert isinstance(link_to(Target(name="a", ae_title="PACS", host="pacs", port=104), 5), DimseLink)


def test_a_token_is_read_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    link = StowLink(target=stow(stow_token_file=file), timeout_s=7)
    with pytest.raises(PeerError, match=r"token .*expected a file with one line"):
        link.session([])
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert link.peer().token == token
    assert link.peer().timeout_s == 7
    file.write_text("")
    with pytest.raises(PeerError, match="token"):
        link.ask()


def test_user_password_and_authority(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    target = stow(stow_user="glam", stow_password_file=tmp_path / "password", stow_authority=tmp_path / "ca.crt")
    peer = StowLink(target=target, timeout_s=5).peer()
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
    ],
)
def test_targets_that_cannot_be_meant(lines: str, told: str) -> None:
    text = f'license_acknowledged = true\ndata = "d"\n[worker]\nbundle = "b"\n[[targets]]\nname = "a"\n{lines}\n'
    with pytest.raises(UsageError, match=told):
        parse_config(text, folder=Path("/"))


def test_a_token_over_http_on_this_machine_is_allowed() -> None:
    assert stow(stow_url="http://127.0.0.1:8043/dicom-web", stow_token_file="t").stow_url
