"""The source compiles for every GPU it is said to run on; what the machine code says of itself."""

import hashlib
import struct
from collections.abc import Iterator
from itertools import product

import pytest

from glam_deploy.gpu.device.kernel import compile_cubin
from glam_deploy.gpu.kernels.launch import kernels_of
from glam_deploy.gpu.kernels.source import ARCHITECTURES, FILES, source, source_sha256
from glam_deploy.networks import CAM, GLAM, GMIC, NetworkSpec

FRAME_SIZE = 0x11
"""EIATTR_FRAME_SIZE of .nv.info: (function's symbol, bytes of its frame in local memory)."""


def sections(elf: bytes) -> dict[str, bytes]:
    """Contents of an ELF64 file by section name."""
    (table,), (size, count, names) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    strings = elf[headers[names][4] :]
    return {strings[h[0] : strings.index(b"\0", h[0])].decode(): elf[h[4] : h[4] + h[5]] for h in headers}


def attributes(info: bytes, wanted: int) -> Iterator[bytes]:
    """Values of one attribute: each begins with its format and its code; format 4 has a size and a value."""
    at = 0
    while at < len(info):
        form, code, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == 4:
            if code == wanted:
                yield info[at : at + size]
            at += size


LOCAL_BYTES = {"sm_75": 8}
"""Of `attend` of GLAM, by NVRTC 13.0; 13.2 and later keep all in registers."""

OLDEST, NEWEST = ARCHITECTURES[0], ARCHITECTURES[-1]
OTHERS = [*((GLAM, one) for one in ARCHITECTURES[1:-1]), *product((GMIC, CAM), (OLDEST, NEWEST))]
CASES = [(GLAM, OLDEST), (GLAM, NEWEST), *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
"""Each takes 5 s or more."""


@pytest.mark.parametrize(("network", "architecture"), CASES)
def test_every_kernel_is_in_the_machine_code_and_keeps_its_values_in_registers(
    network: NetworkSpec, architecture: str
) -> None:
    parts = sections(compile_cubin(source(network), architecture=architecture, name="glam.cu"))
    kernels = kernels_of(network)
    assert {name.removeprefix(".text.") for name in parts if name.startswith(".text.")} == set(kernels)
    frames = [struct.unpack("<II", value)[1] for value in attributes(parts[".nv.info"], FRAME_SIZE)]
    assert len(frames) >= len(kernels)
    assert max(frames) <= LOCAL_BYTES.get(architecture, 0)


def test_the_hash_is_of_the_text_and_the_text_is_of_every_file() -> None:
    assert source_sha256(GLAM) == hashlib.sha256(source(GLAM).encode()).hexdigest()
    assert source(GLAM) == source(GLAM)
    own = [name for name in FILES if name != "enlarge.cu"]
    assert [name for name in FILES if source(GLAM).count(f'#line 1 "{name}"') == 1] == own
    assert "constexpr int INPUT_ROWS = 2944;" in source(GLAM)
