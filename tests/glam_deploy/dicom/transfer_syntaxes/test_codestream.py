"""JPEG 2000 with packets or tile-parts left out, and headers that state too many packets.

The streams in `streams` are `tissue()`, by opj_compress 2.5.0: packets.j2k (-SOP -c [32,32] -b 16,16 -r 20,5,1 -n 3),
tile_parts.j2k (-TP R -n 4 -t 48,96), orders.j2k (-POC T1=0,0,1,3,1,LRCP -n 3).
"""

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from openjpeg import utils as openjpeg
from support.streams import htj2k_stream, jpeg_2000_stream, tissue

from glam_deploy.dicom.transfer_syntaxes import codestream, jpeg2000
from glam_deploy.dicom.transfer_syntaxes.jpeg2000 import decode
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError

STREAMS = Path(__file__).parents[1] / "streams"
PIXELS = tissue()
SOT, EOC = b"\xff\x90\0\x0a", b"\xff\xd9"


def stored(name: str) -> bytes:
    return (STREAMS / f"{name}.j2k").read_bytes()


def ended(stream: bytes, at: int, *, stated: bool = True) -> bytes:
    """A stream of one tile-part that ends at `at`, with its length corrected, or not stated."""
    start = stream.index(SOT)
    length = struct.pack(">I", at - start if stated else 0)
    return stream[: start + 6] + length + stream[start + 10 : at] + EOC


def without_starts(stream: bytes) -> tuple[bytes, list[int]]:
    """A stream without its SOP segments, and where its packets begin."""
    begins = [found.start() for found in re.finditer(rb"\xff\x91\x00\x04", stream)]
    for begin in reversed(begins):
        stream = stream[:begin] + stream[begin + 6 :]
    style = stream.index(b"\xff\x52") + 4
    stream = stream[:style] + bytes([stream[style] & ~2]) + stream[style + 1 :]
    return ended(stream, len(stream) - 2), [begin - 6 * i for i, begin in enumerate(begins)]


def parts_of(stream: bytes) -> tuple[bytes, list[bytes]]:
    """The main header, and the tile-parts."""
    at = start = stream.index(SOT)
    parts = []
    while stream[at : at + 4] == SOT:
        (length,) = struct.unpack_from(">I", stream, at + 6)
        parts.append(stream[at : at + length])
        at += length
    return stream[:start], parts


@pytest.mark.parametrize("name", ["packets", "tile_parts", "orders"])
def test_whole_streams_are_read(name: str) -> None:
    np.testing.assert_array_equal(decode(stored(name), PIXELS.shape).pixels, PIXELS)


def test_a_stream_cut_between_packets_is_refused_wherever_it_is_cut() -> None:
    plain, begins = without_starts(stored("packets"))
    np.testing.assert_array_equal(decode(plain, PIXELS.shape).pixels, PIXELS)
    assert len(begins) == 81  # 3 layers of 3 resolutions of 9 precincts
    streams = [ended(plain, begin, stated=stated) for begin in begins for stated in (True, False)]
    streams += [ended(stored("packets"), begin + 6 * i) for i, begin in enumerate(begins)]
    assert (openjpeg.decode(streams[-50]) != PIXELS).any()  # another reader of it does not see it
    for stream in streams:
        with pytest.raises(StreamError, match=r"of its packets|Failed to decode tile"):
            decode(stream, PIXELS.shape)


def test_how_many_packets_are_missing_is_told() -> None:
    plain, begins = without_starts(stored("packets"))
    with pytest.raises(StreamError, match="7 of its packets are missing"):
        decode(ended(plain, begins[-7]), PIXELS.shape)


CONSTANT = {"black": 0, "middle": 2048, "white": 4095}


@pytest.mark.parametrize("value", CONSTANT.values(), ids=CONSTANT)
@pytest.mark.parametrize("encode", [jpeg_2000_stream, htj2k_stream])
def test_packets_of_a_byte_are_not_taken_for_missing_ones(encode: Callable[..., bytes], value: int) -> None:
    pixels = np.full((96, 80), value, np.uint16)
    pixels[:8, :8] += value == 0  # nothing but the first code-blocks
    stream = encode(pixels, 12)
    np.testing.assert_array_equal(decode(stream, pixels.shape).pixels, pixels)
    np.testing.assert_array_equal(decode(ended(stream, len(stream) - 2, stated=False), pixels.shape).pixels, pixels)


def test_a_byte_less_of_packets_of_a_byte_is_refused() -> None:
    """Six packets in which no code-block is, for a grey image."""
    stream = jpeg_2000_stream(np.full((96, 80), 2048, np.uint16), 12)
    data = stream.index(b"\xff\x93") + 2
    assert stream[data:-2] == b"\x80" * 6
    for lost in range(1, 6):
        with pytest.raises(StreamError, match="6 of its packets are missing or have fewer than 6 bytes"):
            decode(ended(stream, len(stream) - 2 - lost), (96, 80))


def test_high_throughput_without_its_last_packet_is_refused() -> None:
    stream = htj2k_stream(PIXELS, 12)
    accepted = 0
    for at in range(stream.index(b"\xff\x93") + 2, len(stream) - 2, 7):
        try:
            accepted += (decode(ended(stream, at), PIXELS.shape).pixels != PIXELS).any()
        except StreamError:
            continue
    assert accepted == 0


def _numbered(part: bytes, index: int, number: int) -> bytes:
    return part[:10] + bytes([index, number]) + part[12:]


def _wrong_parts() -> Iterator[tuple[bytes, str]]:
    head, parts = parts_of(stored("tile_parts"))
    first, second = parts[:4], parts[4:]
    unstated = [_numbered(part, part[10], 0) for part in parts]
    yield head + b"".join(parts[:-1]) + EOC, "tile 1 has 3 tile-parts, its header states 4"
    yield head + b"".join(first[:1] + second) + EOC, "tile 0 has 1 tile-parts, its header states 4"
    yield head + b"".join(first[:1] + first[2:] + second) + EOC, "tile 0 has tile-part 2, expected tile-part 1"
    yield head + b"".join(first[::-1] + second) + EOC, "tile 0 has tile-part 3, expected tile-part 0"
    yield head + b"".join([*first, first[-1], *second]) + EOC, "tile 0 has tile-part 3, expected tile-part 4"
    yield head + b"".join(first) + EOC, "it has 1 tiles, its header states 2"
    yield head + b"".join([_numbered(first[0], 0, 3), *first[1:], *second]) + EOC, "state 3 and 4 tile-parts"
    yield head + b"".join(unstated[:-1]) + EOC, "before 1 of its packets"
    yield head + b"".join(unstated[:3] + unstated[4:]) + EOC, "before 1 of its packets"


WRONG_PARTS = list(_wrong_parts())


@pytest.mark.parametrize(("stream", "words"), WRONG_PARTS, ids=[words for _, words in WRONG_PARTS])
def test_tile_parts_must_be_all_there_and_in_order(stream: bytes, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        decode(stream, PIXELS.shape)


def test_tile_parts_may_alternate_between_tiles_and_leave_their_number_open() -> None:
    head, parts = parts_of(stored("tile_parts"))
    mixed = [part for pair in zip(parts[:4], parts[4:], strict=True) for part in pair]
    opened = [_numbered(part, part[10], 4 if part[10] == 2 else 0) for part in mixed]
    for order in (mixed, opened):
        found = decode(head + b"".join(order) + EOC, PIXELS.shape).pixels
        np.testing.assert_array_equal(found, PIXELS)


def test_an_order_that_leaves_packets_out_is_refused() -> None:
    stream = stored("orders")
    order = stream.index(b"\xff\x5f") + 4
    for at, value, words in (
        (order, 1, "0 of 1 layers of resolution 0"),
        (order + 4, 2, "0 of 1 layers of resolution 2"),
    ):
        changed = stream[:at] + bytes([value]) + stream[at + 1 :]
        with pytest.raises(StreamError, match=words):
            decode(changed, PIXELS.shape)


@pytest.mark.parametrize("marker", [0x60, 0x61])
def test_packed_packet_headers_are_refused(marker: int) -> None:
    stream = stored("packets")
    at = stream.index(SOT)
    with pytest.raises(StreamError, match="packed packet headers"):
        decode(stream[:at] + bytes([0xFF, marker, 0, 3, 0]) + stream[at:], PIXELS.shape)


def _header(
    side: int, layers: int, levels: int, block: int, precincts: bytes = b"", *, tile: int = 0, order: int = 0
) -> bytes:
    """An image of side x side whose tiles hold 100 empty packets each."""
    siz = struct.pack(">HH8IH3B", 41, 0, side, side, 0, 0, tile or side, tile or side, 0, 0, 1, 15, 1, 1)
    cod = struct.pack(">BBHBBBBBB", bool(precincts), order, layers, 0, levels, block, block, 0, 1) + precincts
    qcd = bytes([0x40]) + bytes([0x88]) * (3 * levels + 1)
    main = b"\xff\x4f\xff\x51" + siz
    for marker, body in ((0x52, cod), (0x5C, qcd)):
        main += struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body
    tiles = range((-(-side // (tile or side))) ** 2)
    return main + b"".join(SOT + struct.pack(">HIBB", i, 114, 0, 1) + b"\xff\x93" + bytes(100) for i in tiles) + EOC


TOO_MUCH = {
    "layers": (_header(10_000, 65535, 5, 4), 10_000, "393210 packets (65535 layers of 6 precincts)"),
    "layers of a small image": (_header(64, 65535, 5, 4), 64, "393210 packets"),
    "layers of tiles": (_header(64, 200, 5, 4, tile=2), 64, "477600 packets (200 layers of 2388 precincts)"),
    "layers of precincts": (_header(700, 65535, 0, 0, b"\x22", order=2), 700, "(65535 layers of 30625 precincts)"),
    "precincts": (_header(10_000, 1, 0, 4, b"\x11"), 10_000, "25024414 precincts and code-blocks"),
    "precincts of tiles": (_header(1024, 2, 32, 4, tile=5), 1024, "148198 precincts and code-blocks"),
    "code-blocks": (
        _header(9_950, 1, 5, 2),
        9_950,
        "code-blocks, expected up to 193364 in 99002500 pixels",
    ),
    "places": (_header(10_000, 1, 1, 4, b"\xf1\x1f", order=2), 10_000, "positions"),
}


@pytest.mark.parametrize(("stream", "side", "words"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_header_that_states_too_many_packets_is_refused_unread(
    stream: bytes, side: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagecodecs.jpeg2k_decode", None)
    with pytest.raises(StreamError, match=re.escape(words)):
        decode(stream, (side, side))


def test_an_image_that_lacks_most_packets_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time only tells packets of up to five bytes at the end of each tile from such that are missing."""
    plain, begins = without_starts(stored("packets"))
    counted: list[int] = []
    once = jpeg2000._decode_once
    monkeypatch.setattr(jpeg2000, "_decode_once", lambda *given: counted.append(1) or once(*given))
    with pytest.raises(StreamError, match="40 of its packets are missing"):
        decode(ended(plain, begins[-40]), PIXELS.shape)
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("layers", "levels", "precincts", "tile"),
    [(50, 5, b"", 0), (12, 5, b"\x77" * 6, 0), (1, 5, b"", 64), (30, 32, b"", 0), (3, 5, b"\x88" * 6, 1024)],
)
def test_headers_as_encoders_write_them_are_within_the_limits(
    layers: int, levels: int, precincts: bytes, tile: int
) -> None:
    codestream.checked(_header(5_000, layers, levels, 4, precincts, tile=tile), (5_000, 5_000))


def test_a_whole_mammogram_may_have_the_smallest_blocks_that_encoders_use() -> None:
    codestream.checked(_header(5_000, 1, 5, 2), (5_000, 5_000))


@pytest.mark.parametrize(("origin", "tile"), [((0, 0), (96, 80)), ((7, 5), (40, 30)), ((3, 33), (33, 64))])
def test_the_packets_of_a_header_are_those_openjpeg_looks_for(
    origin: tuple[int, int], tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenJPEG tells each packet without bytes for its marker: also the first of each tile, which takes a byte."""
    stream = bytearray(_header(64, 3, 2, 0, b"\x33\x44\x55"))
    struct.pack_into(">8I", stream, 8, origin[1] + 80, origin[0] + 96, origin[1], origin[0], *tile[::-1], 0, 0)
    start = stream.index(SOT)
    across, down = -(-(origin[1] + 80) // tile[1]), -(-(origin[0] + 96) // tile[0])
    parts = (SOT + struct.pack(">HIBB", i, 15, 0, 1) + b"\xff\x93\0" for i in range(across * down))
    with pytest.raises(StreamError) as caught:
        decode(bytes(stream[:start]) + b"".join(parts) + EOC, (96, 80))
    told = re.search(r"(\d+) of its packets are missing", str(caught.value))
    assert told
    monkeypatch.setattr(codestream, "MAX_PACKETS", 1)
    with pytest.raises(StreamError, match=f"states {told[1]} packets"):
        decode(bytes(stream), (96, 80))


@pytest.mark.slow
@pytest.mark.parametrize("order", range(5), ids=["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"])
@pytest.mark.skipif(not shutil.which("opj_compress"), reason="opj_compress is not installed: make validate installs it")
def test_no_cut_between_packets_in_a_thousand_is_read(order: int, tmp_path: Path) -> None:
    """With four layers and precincts of 32 x 32, 200 cuts for each progression order."""
    pixels, source, target = tissue((256, 200)), tmp_path / "a.pgm", tmp_path / "a.j2k"
    source.write_bytes(b"P5\n200 256\n4095\n" + pixels.astype(">u2").tobytes())
    name = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")[order]
    options = ["-SOP", "-p", name, "-c", "[32,32]", "-b", "16,16", "-r", "40,20,5,1"]
    subprocess.run(["opj_compress", "-i", source, "-o", target, *options], check=True, capture_output=True)
    plain, begins = without_starts(target.read_bytes())
    np.testing.assert_array_equal(decode(plain, pixels.shape).pixels, pixels)
    for begin in np.random.default_rng(order).choice(begins, 200, replace=False):
        with pytest.raises(StreamError):
            decode(ended(plain, int(begin)), pixels.shape)
