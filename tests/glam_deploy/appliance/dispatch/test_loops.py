"""Results never go to the appliance's own listeners."""

import socket

import pytest

from glam_deploy.appliance.config import Config, Receive, Target, Tls, TlsListener, Web, Worker
from glam_deploy.appliance.dispatch.loops import leads_back

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
    assert leads_back(Target(name="a", ae_title="ANY", host=host, port=port), config())


def test_our_own_address_by_any_name() -> None:
    name = socket.gethostname()
    assert leads_back(Target(name="a", ae_title="ANY", host=name, port=11112), config())


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 104), ("192.0.2.1", 11112), ("no-such-host.invalid", 11112)])
def test_other_nodes(host: str, port: int) -> None:
    assert not leads_back(Target(name="a", ae_title="GLAM", host=host, port=port), config())


def test_our_own_dicomweb_service_where_there_is_one() -> None:
    ours = Target(name="a", stow_url="http://127.0.0.1:8042/dicom-web")
    assert leads_back(ours, config(web=True))
    assert not leads_back(ours, config())
    assert not leads_back(Target(name="a", stow_url="https://192.0.2.1/dicom-web"), config(web=True))


def test_tls_is_no_way_round() -> None:
    assert leads_back(Target(name="a", ae_title="ANY", host="127.0.0.1", port=2762, tls=Tls(**TLS)), config())
