"""The client side of an association: responses reach the caller that waits for them."""

import pytest
from pynetdicom.dimse import DIMSEServiceProvider
from support.pacs import FakePacs

from glam_deploy.dicom.net.client import ClientMessages
from glam_deploy.dicom.net.sender import DimseSession


def test_the_thread_of_the_association_takes_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were about to pause whenever a message arrives: it asks for messages before the caller does."""
    receive = DIMSEServiceProvider.receive_primitive

    def receive_and_look(self: DIMSEServiceProvider, primitive: object) -> None:
        receive(self, primitive)  # type: ignore[arg-type]
        if isinstance(self, ClientMessages):
            assert self.get_msg(block=False) == (None, None)

    monkeypatch.setattr(DIMSEServiceProvider, "receive_primitive", receive_and_look)
    with FakePacs().running() as pacs, DimseSession(pacs.peer()) as session:
        session.echo()
        session.echo()
