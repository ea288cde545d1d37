"""Files that are replaced or changed while they are read."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from glam_deploy import regular
from glam_deploy import unchanged as module
from glam_deploy.errors import InputError
from glam_deploy.reading import read
from glam_deploy.regular import read_regular
from glam_deploy.unchanged import file_sha256, require_sha256, unchanged

ONE, OTHER = b"one content", b"the other!!"


def replace(path: Path, content: bytes = OTHER) -> None:
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def change(path: Path) -> None:
    path.write_bytes(OTHER)


def change_back_in_time(path: Path) -> None:
    """The same size and time of modification, as `cp --preserve` gives it."""
    found = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.dcm").write_bytes(ONE)
    return tmp_path / "a.dcm"


@pytest.fixture(params=["fresh", "old"])
def age(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "old":
        monkeypatch.setattr(module, "_FRESH_S", -1e6)


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("harm", [replace, change, change_back_in_time, Path.unlink])
def test_another_content_is_an_error(path: Path, harm: Callable[[Path], object]) -> None:
    expected = "cannot be read" if harm is Path.unlink else r"was changed or replaced while it was read \(SHA-256 "
    with pytest.raises(InputError, match=expected), unchanged(path) as sha256:
        assert sha256 == hashlib.sha256(ONE).hexdigest()
        harm(path)


def exchange_and_put_back(path: Path) -> None:
    """By renaming, which leaves content and time of modification as they were."""
    kept = path.rename(path.with_suffix(".kept"))
    replace(path)
    kept.replace(path)


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("harm", [exchange_and_put_back, lambda path: replace(path, ONE)])
def test_the_first_content_again_is_an_error(path: Path, harm: Callable[[Path], object]) -> None:
    """What was read in between may have been another one."""
    with pytest.raises(InputError, match="was changed, moved or linked while it was read"), unchanged(path):
        harm(path)
    require_sha256(path, hashlib.sha256(ONE).hexdigest())


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("through", ["a link to the file", "a link to its folder"])
def test_another_file_under_the_same_path_is_not_opened(path: Path, tmp_path: Path, through: str) -> None:
    """The links lead elsewhere for a while; the files themselves show nothing of it. Other threads see it too."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.dcm").write_bytes(OTHER)
    link = tmp_path / "link"
    targets = (path, tmp_path / "other/a.dcm") if "the file" in through else (tmp_path, tmp_path / "other")
    link.symlink_to(targets[0])
    given = link if "the file" in through else link / path.name

    def lead_to(target: Path) -> None:
        link.with_name("new").symlink_to(target)
        link.with_name("new").replace(link)

    with unchanged(given) as sha256, ThreadPoolExecutor() as threads:
        lead_to(targets[1])
        with pytest.raises(OSError, match="exchanged while it was read"):
            threads.submit(read_regular, given).result()
        with pytest.raises(InputError, match=r"exchanged while it was read\): run again when it rests"):
            read(given)
        lead_to(targets[0])
        assert hashlib.sha256(read_regular(given)).hexdigest() == sha256
    lead_to(targets[1])
    assert read_regular(given) == OTHER, "nothing is held any more"


@pytest.mark.parametrize(("fresh_s", "reads"), [(-1e6, 1), (1e6, 2)])
def test_a_file_that_rests_is_hashed_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, fresh_s: float, reads: int
) -> None:
    """Times of a fresh file may be those of a second change too."""
    hashed = []
    real = hashlib.sha256
    monkeypatch.setattr(module, "_FRESH_S", fresh_s)
    monkeypatch.setattr(hashlib, "sha256", lambda: (hashed.append(1), real())[1])
    with unchanged(path):
        pass
    assert len(hashed) == reads


def test_the_error_of_the_reader_is_not_hidden(path: Path) -> None:
    with pytest.raises(KeyError), unchanged(path):
        replace(path)
        raise KeyError


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: (path.unlink(), path.mkdir())])
def test_what_cannot_be_read(path: Path, harm: Callable[[Path], object]) -> None:
    harm(path)
    with pytest.raises(InputError, match=r"^the file cannot be read \(.*\): check its path"), unchanged(path):
        pass


def test_a_file_without_end_is_not_read(path: Path) -> None:
    os.truncate(path, 1 << 40)
    with pytest.raises(InputError, match="has 1099511627776 bytes, expected at most 5368709120"):
        file_sha256(path)


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="Linux has it")
def test_a_file_of_the_kernel_that_states_no_size_is_not_read(path: Path) -> None:
    """/proc/self/pagemap has 256 GB and states 0."""
    path.unlink()
    path.symlink_to("/proc/self/pagemap")
    with pytest.raises(InputError, match="more than its 0 bytes"), unchanged(path):
        pass


def test_a_file_that_would_keep_waiting_is_unreadable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /proc/kmsg, a regular file by its mode, whose reading ends with EAGAIN as that of an empty pipe does."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    monkeypatch.setattr(regular, "_opened", lambda *_: os.dup(reader))
    for use in (file_sha256, read):
        with pytest.raises(InputError, match="cannot be read"):
            use(path)
    with pytest.raises(BlockingIOError):
        read_regular(path)
    os.close(writer)
    os.close(reader)
