"""The process that reads views: it gives what `read_view` gives, and whatever happens to it costs one view."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePath

import cv2
import gdcm
import numpy as np
import pytest
from hostile import closed, with_elements
from mammograms import breast, transcode, write_mg
from pydicom import uid
from pydicom.uid import JPEGLSLossless
from support.decoders import HANG_S, MISDEEDS, NO_LANDLOCK, RISCV, program
from support.until import until

from glam_deploy.archive.decoder import decode_here
from glam_deploy.decoding import view_reader
from glam_deploy.decoding.view_reader import NotStarted, Stopped, ViewReader, ViewReaders
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, GlamError, InputError, NotForThisNetwork
from glam_deploy.records import View


@pytest.fixture
def reader() -> Iterator[ViewReader]:
    with closing(ViewReader(longest_s=60, stop=threading.Event())) as made:
        yield made


def child(reader: ViewReader) -> int:
    assert reader._process
    return reader._process.pid


def test_gives_what_read_view_gives(reader: ViewReader, tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm", syntax=JPEGLSLossless, view=View.R_MLO)
    reader.read(path, for_processing=False)
    first = child(reader)
    here, there = read_view(path), reader.read(path, for_processing=False)
    assert (there.pixels == here.pixels).all() and there.pixels.dtype == here.pixels.dtype
    assert (there.view, there.source, there.notices) == (here.view, here.source, here.notices)
    with pytest.raises(NotForThisNetwork, match="implant"):
        other = write_mg(tmp_path / "b.dcm", lambda dataset: setattr(dataset, "BreastImplantPresent", "YES"))
        reader.read(other, for_processing=False)
    with pytest.raises(DicomError, match="cannot be opened"):
        reader.read(tmp_path / "none.dcm", for_processing=False)
    with pytest.raises(DicomError, match="more than 20000 elements"):
        bomb = with_elements(tmp_path / "c.dcm", closed(bytes.fromhex("feff00e000000000") * 50_000))
        reader.read(bomb, for_processing=False)
    assert child(reader) == first, "one process for all"


SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
)


def test_every_decoder_works_within_the_limits(reader: ViewReader, tmp_path: Path) -> None:
    """Of pydicom's plugins and of OpenCV, whenever they are imported; the pixels are those that were written."""
    files = [write_mg(tmp_path / f"{syntax}.dcm", syntax=syntax) for syntax in SYNTAXES]
    for syntax in (gdcm.TransferSyntax.JPEGLosslessProcess14_1, gdcm.TransferSyntax.JPEGLosslessProcess14):
        files.append(transcode(write_mg(tmp_path / f"jpeg{syntax}.dcm"), syntax))
    for suffix in ("png", "tiff"):
        files.append(tmp_path / f"a_L-CC.{suffix}")
        cv2.imwrite(str(files[-1]), breast(View.L_CC))
    files.append(tmp_path / "a_L-CC.npy")
    np.save(files[-1], breast(View.L_CC))
    for path in files:
        found = reader.read_content(path.read_bytes(), path, for_processing=False)
        np.testing.assert_array_equal(found.pixels, breast(View.L_CC), strict=True)
        if path.suffix == ".dcm":
            by_path = reader.read(path, for_processing=False)
            np.testing.assert_array_equal(by_path.pixels, breast(View.L_CC), strict=True)
        expected = decode_here(path.read_bytes(), path, for_processing=False)
        assert (found.view, found.notices, found.source) == (expected.view, expected.notices, expected.source)
        assert found.source.name == path.name
    assert reader.wait_until_ready().missing == ""


def test_content_takes_the_view_from_its_original_path(reader: ViewReader, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", breast(View.R_CC))
    content = (tmp_path / "a.npy").read_bytes()
    assert reader.read_content(content, PurePath("set/1_R-CC.npy"), for_processing=False).view is View.R_CC
    with pytest.raises(InputError, match="the view is unknown"):
        reader.read_content(content, PurePath("set/1.npy"), for_processing=False)
    with pytest.raises(InputError):
        reader.read_content(b"", PurePath("set/1_R-CC.npy"), for_processing=False)


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_what_a_decoder_may_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misdeed: str) -> None:
    """It costs its own image; the next one is read."""
    bad, good = write_mg(tmp_path / f"{misdeed}_L-CC.dcm"), write_mg(tmp_path / "a.dcm")
    (tmp_path / "rights").mkdir()
    monkeypatch.setattr(view_reader, "_PROGRAM", program(tmp_path / "rights"))
    limit = HANG_S if misdeed == "hangs" else 60
    with closing(ViewReader(longest_s=limit)) as reader:
        with pytest.raises(GlamError, match=re.escape(MISDEEDS[misdeed][1])):
            reader.read(bad, for_processing=False)
        reader._longest_s = 60
        assert reader.read(good, for_processing=False).view is View.L_CC
    assert not list((tmp_path / "rights").iterdir())


RAISES = "child._read = raising"
PART_OF_AN_ANSWER = "child._answer = lambda channel, *_: (channel.sendall(struct.pack('=L', 1000) + b'part'), idle())"
UNSEALED = "messages.SEALS = 0"
PICKLED = "child._answer = lambda channel, *_: sent(channel, pickle.dumps(os.system))"
WITH_A_PROPERTY = (
    "child.send = lambda channel, answer, *more: sent(channel, text(answer)[:-1] + b', \"faces_left\": true}', *more)"
)
NESTED = "child.send = lambda channel, *_: sent(channel, b'[' * 100_000)"
WRONG_SHAPE = "change(shape=(1 << 40, 1))"
WRONG_TYPE = "change(dtype='O')"
NO_VIEW = "change(view='R-XX')"
NO_ERROR = "change(refusal=Refusal(kind='Caller', message='', remedies=()))"
OTHER_ERROR = "change(refusal=Refusal(kind='GpuLost', message='', remedies=()))"
SURROGATE = "change(refusal=Refusal(kind='DicomError', message='\\ud800', remedies=()))"
SURROGATE_KIND = "Answer.of = lambda mammogram: of(replace(mammogram, source=Source(name='', kind='\\ud800')))"
HUGE = "child._send_view = huge"
LONG = "child.send = lambda channel, *_: sent(channel, b' ' * (2 << 20))"
OTHER = "its decoder gave back something else than an image"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (RAISES, "a fault while reading it: ValueError"),
        (PART_OF_AN_ANSWER, "longer than 1 s"),
        *((program, OTHER) for program in (UNSEALED, PICKLED, WITH_A_PROPERTY, NESTED, LONG)),
        *((program, OTHER) for program in (WRONG_SHAPE, WRONG_TYPE, NO_VIEW, NO_ERROR)),
        *((program, OTHER) for program in (OTHER_ERROR, SURROGATE, SURROGATE_KIND, HUGE)),
    ],
)
def test_what_an_answer_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str) -> None:
    """The process is the real one, in which reading is replaced; then it is the real one again."""
    real, path = view_reader._PROGRAM, write_mg(tmp_path / "a.dcm")
    bad = f"""
import fcntl, json, os, pickle, socket, struct, time
from dataclasses import replace
from glam_deploy.decoding import child, messages, start
from glam_deploy.decoding.answers import Answer, Refusal
from glam_deploy.json_records import to_json
from glam_deploy.records import Source
read, of = child._read, Answer.of

def raising(request, content):
    raise ValueError("CANARY")

def idle():
    time.sleep(600)

def text(answer):
    return json.dumps(to_json(answer)).encode()

def sent(channel, content, *descriptors):
    socket.send_fds(channel, [struct.pack("=L", len(content))], descriptors)
    channel.sendall(content)

def huge(channel, mammogram):
    pixels = os.memfd_create("pixels", os.MFD_ALLOW_SEALING)
    os.ftruncate(pixels, 60_000 * 60_000)
    fcntl.fcntl(pixels, fcntl.F_ADD_SEALS, messages.SEALS)
    messages.send(channel, replace(of(mammogram), shape=(60_000, 60_000), dtype="|u1"), pixels)

def change(**changes):
    Answer.of = lambda mammogram: replace(of(mammogram), **changes)

serve = child.serve
def serve_otherwise(control, *, niceness):
    confine = start.confine
    def confine_and_replace(*arguments):
        missing = confine(*arguments)
        if control.fileno() == -1:  # in the process of an image
            {program}
        return missing
    start.confine = confine_and_replace
    serve(control, niceness=niceness)
child.serve = serve_otherwise
start.main()
"""
    with closing(ViewReader(longest_s=1 if program is PART_OF_AN_ANSWER else 60)) as reader:
        monkeypatch.setattr(view_reader, "_PROGRAM", bad)
        with pytest.raises(GlamError, match=reason) as caught:
            reader.read(path, for_processing=False)
        assert "CANARY" not in str(caught.value)
        reader._longest_s = 60
        monkeypatch.setattr(view_reader, "_PROGRAM", real)
        if reader._process:
            os.kill(child(reader), signal.SIGKILL)
            os.waitid(os.P_PID, child(reader), os.WEXITED | os.WNOWAIT)
        assert reader.read(path, for_processing=False).view is View.L_CC


TAKEN_OVER = """
import fcntl, gc, os, socket, time
from pathlib import PurePath
from glam_deploy.decoding import child, start
from glam_deploy.decoding.answers import Answer, Refusal
from glam_deploy.decoding.messages import send
read, send_view = child._read, child._send_view
forged = Answer(refusal=Refusal(kind="DicomError", message="forged", remedies=()))

def channels():
    return [each for each in gc.get_objects() if isinstance(each, socket.socket) and each.fileno() != -1]

def answer_many_times():
    for number in range(99):
        for channel in channels():
            send(channel, forged, 0)

def linger(channel, mammogram):
    send_view(channel, mammogram)
    time.sleep(600)

def misread(request, content):
    {
        "stays": lambda: globals().update(read=None, misread=None),
        "answers": answer_many_times,
        "lingers": lambda: setattr(child, "_send_view", linger),
        "prints": lambda: [print("CANARY", flush=True), os.write(1, b"CANARY"), os.write(2, b"CANARY")],
        "asks": lambda: os.open("/dev/tty", os.O_RDONLY),
        "good": lambda: None,
    }[PurePath(request.path).stem]()
    return read(request, content)

child._read = misread
start.main()
"""
"""A decoder that has taken over the process of its image, as the name of the file says."""


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("stays", "a fault while reading it: TypeError"),
        ("answers", "forged"),
        ("lingers", None),
        ("prints", None),
        ("asks", "a fault while reading it: PermissionError"),
    ],
)
def test_a_decoder_that_has_taken_over_its_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    deed: str,
    reason: str | None,
) -> None:
    """It can say what it likes of its own image; the next ones are read as ever, and nothing of it is left."""
    monkeypatch.setattr(view_reader, "_PROGRAM", TAKEN_OVER)
    monkeypatch.setattr(view_reader, "END_S", 0.5)
    bad, good = write_mg(tmp_path / f"{deed}.dcm", view=View.R_CC), write_mg(tmp_path / "good.dcm", view=View.L_MLO)
    with closing(ViewReader(longest_s=60)) as reader:
        reader.read(good, for_processing=False)
        before = open_descriptors()
        for _ in range(3):
            if reason is None:
                assert reader.read(bad, for_processing=False).view is View.R_CC
            else:
                with pytest.raises(GlamError, match=reason):
                    reader.read(bad, for_processing=False)
            found = reader.read(good, for_processing=False)
            assert found.view is View.L_MLO
            np.testing.assert_array_equal(found.pixels, breast(View.L_MLO))
            del found  # its shared memory has a descriptor
        until(lambda: open_descriptors() == before)
    assert "CANARY" not in "".join(capfd.readouterr())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_that_cannot_begin_is_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_reader, "_PROGRAM", "raise SystemExit(3)")
    with closing(ViewReader(longest_s=1)) as reader, pytest.raises(NotStarted, match="exit code 3 before it was ready"):
        reader.read(write_mg(tmp_path / "a.dcm"), for_processing=False)


ABSENT = {
    "no filter of system calls (no filter for the processor riscv64)": RISCV,
    "no limit of files (Function not implemented)": NO_LANDLOCK,
}
"""What the child process has not got -> its program: on a processor without a table, on a kernel without Landlock."""


@pytest.mark.parametrize("missing", ABSENT)
def test_a_kernel_without_a_limit_is_named_once_and_views_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    """With the other limits."""
    monkeypatch.setattr(view_reader, "_PROGRAM", ABSENT[missing])
    view_reader._warn.cache_clear()  # of the tests before in this process
    for _ in range(2):
        with closing(ViewReader(longest_s=60)) as reader:
            assert reader.read(write_mg(tmp_path / "a.dcm"), for_processing=False).view is View.L_CC
            limits = Path(f"/proc/{child(reader)}/limits").read_text()
            assert re.search(rf"Max data size +{4 << 30} +{4 << 30}", limits)
            assert reader.wait_until_ready().missing == missing
    assert caplog.text.count(f"decoders have limits of memory and time here, but {missing}") == 1


UNCONFINED = """
from glam_deploy.decoding import start
start.confine = lambda parent, image=None: "no limit of files (Cannot allocate memory)" if image else ""
start.main()
"""


def test_an_image_is_not_read_with_fewer_limits_than_were_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_reader, "_PROGRAM", UNCONFINED)
    with closing(ViewReader(longest_s=60)) as reader:
        assert reader.wait_until_ready().missing == ""
        with pytest.raises(InputError, match="its decoder ended with exit code 1"):
            reader.read(write_mg(tmp_path / "a.dcm"), for_processing=False)


def test_stopping_does_not_wait_for_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = "child._read = lambda *_: time.sleep(600); start.main()"
    begin = "import time; from glam_deploy.decoding import child, start; "
    monkeypatch.setattr(view_reader, "_PROGRAM", begin + hang)
    stop = threading.Event()
    with closing(ViewReader(longest_s=600, stop=stop)) as reader:
        reader.wait_until_ready()
        pid = child(reader)
        threading.Timer(1, stop.set).start()
        with pytest.raises(Stopped):
            reader.read(write_mg(tmp_path / "a.dcm"), for_processing=False)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        reader = ViewReader(longest_s=600, stop=threading.Event())
        reader.start()
        os.write(write, str(child(reader)).encode())
        time.sleep(600)
    pid = int(os.read(read, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(read)
    os.close(write)
    until(lambda: _is_gone(pid))


def _is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_several_threads_have_a_process_each_that_is_used_again(tmp_path: Path) -> None:
    path, together = write_mg(tmp_path / "a.dcm"), threading.Barrier(2)

    def read(_: int) -> None:
        together.wait(60)
        assert readers.read(path, for_processing=False).view is View.L_CC

    with closing(ViewReaders(longest_s=60, stop=threading.Event())) as readers:
        readers.read(path, for_processing=False)
        first = child(readers._all[0])
        for _ in range(2):
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(read, range(2)))
        processes = [child(reader) for reader in readers._all]
        assert processes[0] == first and len(processes) <= 2
    for process in processes:
        until(lambda process=process: not Path(f"/proc/{process}").exists())
