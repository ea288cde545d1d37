"""A Triton server, started once."""

from collections.abc import Iterator

import pytest
from expected import need
from support.served import write_repository
from support.triton_server import TritonServer, missing, triton_server, wait_until_ready


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """With the pipeline of the tiny bundle; `room/bundle` is the bundle, `room/models` the repository."""
    need("triton", missing())
    room = tmp_path_factory.mktemp("triton")
    with triton_server(write_repository(room, "--graphs", "none", "--patches", "2"), room) as started:
        wait_until_ready(started)
        yield started
