"""Work that may be launched again as part of a graph, and work that may not. Run by test_on_fake_gpu.py.

Needs only `gpu`, so that it also runs on a real one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.context import DeviceMemory, PinnedMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.repeatable import only_repeatable
from glam_deploy.gpu.device.stream import Stream

BYTES = 64


@dataclass
class Places:
    stream: Stream
    here: DeviceMemory
    there: DeviceMemory
    host: PinnedMemory

    def copy(self, to: int, source: int) -> None:
        """As `cudaMemcpyAsync` with `cudaMemcpyDefault`."""
        self.stream.context.call("cuMemcpyAsync", to, source, BYTES, self.stream.handle)


@pytest.fixture
def places(gpu: Gpu) -> Iterator[Places]:
    yield Places(gpu.stream(), gpu.allocate(BYTES), gpu.allocate(BYTES), gpu.pinned(BYTES))


Work = Callable[[Places], object]
GOOD: dict[str, Work] = {
    "a fill": lambda p: p.stream.fill(p.here.address, BYTES, 1),
    "a copy within the device": lambda p: p.stream.copy(p.there.address, p.here.address, BYTES),
    "one whose kind the driver finds": lambda p: p.copy(p.there.address, p.here.address),
    "nothing": lambda p: None,
}
HOST = "1 MEMCPY from or to host memory"
BAD: dict[str, tuple[Work, str]] = {
    "a copy from the host": (lambda p: p.stream.copy_in(p.here.address, p.host.address, BYTES), HOST),
    "a copy to the host": (lambda p: p.stream.copy_out(p.host.address, p.here.address, BYTES), HOST),
    "one from the host whose kind the driver finds": (lambda p: p.copy(p.here.address, p.host.address), HOST),
    "one to the host whose kind the driver finds": (lambda p: p.copy(p.host.address, p.here.address), HOST),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_may_be_launched_again(places: Places, name: str) -> None:
    with places.stream.capture() as graph:
        places.stream.copy_in(places.here.address, places.host.address, BYTES)  # not of the library
        with only_repeatable(places.stream, of="a library"):
            GOOD[name](places)
    graph.launch(places.stream)
    graph.launch(places.stream)
    places.stream.synchronize()


@pytest.mark.parametrize("name", BAD)
def test_what_may_not(places: Places, name: str) -> None:
    work, words = BAD[name]

    def record() -> None:
        with places.stream.capture(), only_repeatable(places.stream, of="a library"):
            places.stream.fill(places.here.address, BYTES, 1)
            work(places)

    with pytest.raises(BackendRunError, match=rf"a library has recorded work .*: {words} \(of 2 nodes\)"):
        record()
    assert not places.stream.is_capturing
    places.stream.fill(places.here.address, BYTES, 1)
    places.stream.synchronize()
