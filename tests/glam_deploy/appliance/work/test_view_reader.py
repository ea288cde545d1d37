"""The process that reads views: it gives what `read_view` gives, and whatever happens to it costs one view."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from enum import Enum
from io import BytesIO
from pathlib import Path

import pytest
from hostile import closed, with_elements
from mammograms import write_mg
from pydicom.uid import JPEGLSLossless
from support.until import until

from glam_deploy.appliance.work import reading_process, view_reader
from glam_deploy.appliance.work.view_reader import Stopped, ViewReader, ViewReaders
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, NotForThisNetwork, Remedy
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


PART_OF_AN_ANSWER = (
    "import socket, sys; channel = socket.socket(fileno=int(sys.argv[1])); "
    "channel.sendall(reading_process._LENGTH.pack(1000) + b'part'); time.sleep(600)"
)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed .*SIGSEGV"),
        ("os._exit(3)", "crashed .*exit code 3"),
        ("bytearray(8 << 30)", "a fault while reading it: MemoryError"),
        ("time.sleep(600)", "more than 1 s .worker.longest_read_s"),
        ("raise ValueError('CANARY')", "a fault while reading it: ValueError"),
        (PART_OF_AN_ANSWER, "more than 1 s .worker.longest_read_s"),
    ],
)
def test_what_a_decoder_may_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str) -> None:
    """The process is the real one, in which reading is replaced; then it is the real one again."""
    real, path = view_reader._PROGRAM, write_mg(tmp_path / "a.dcm")
    bad = f"""
import os, signal, time
from glam_deploy.appliance.work import reading_process, view_reader
def bad(request):
    {program}
reading_process._read = bad
reading_process.main()
"""
    with closing(ViewReader(longest_s=1, stop=threading.Event())) as reader:
        monkeypatch.setattr(view_reader, "_PROGRAM", bad)
        with pytest.raises(Exception, match=reason) as caught:
            reader.read(path, for_processing=False)
        assert "CANARY" not in str(caught.value)
        reader._longest_s = 60
        monkeypatch.setattr(view_reader, "_PROGRAM", real)
        if reader._process:
            os.kill(child(reader), signal.SIGKILL)
        assert reader.read(path, for_processing=False).view is View.L_CC


def test_stopping_does_not_wait_for_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = "p._read = lambda _: time.sleep(600); p.main()"
    start = "import time; from glam_deploy.appliance.work import reading_process as p; "
    monkeypatch.setattr(view_reader, "_PROGRAM", start + hang)
    stop = threading.Event()
    with closing(ViewReader(longest_s=600, stop=stop)) as reader:
        threading.Timer(1, stop.set).start()
        with pytest.raises(Stopped):
            reader.read(write_mg(tmp_path / "a.dcm"), for_processing=False)
        pid = child(reader)
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


def test_answers_may_hold_nothing_but_our_records() -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, ("true",)

    with pytest.raises(pickle.UnpicklingError, match="system"):
        view_reader._Unpickler(BytesIO(pickle.dumps(Evil()))).load()


@pytest.mark.parametrize("value", [View.L_CC, Remedy.FLIP])
def test_members_of_enumerations_pass_as_python_3_11_2_pickles_them(
    value: Enum, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enum.__reduce_ex__ of CPython 3.11.0 to 3.11.3, which Debian 12 has; later ones write class and value."""
    by_name = lambda self, protocol: (getattr, (type(self), self.name))  # noqa: E731
    monkeypatch.setattr(type(value), "__reduce_ex__", by_name)
    with pytest.raises(pickle.UnpicklingError, match=r"holds builtins\.getattr"):
        view_reader._Unpickler(BytesIO(pickle.dumps(value))).load()
    assert view_reader._Unpickler(BytesIO(reading_process.packed(value))).load() is value


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
