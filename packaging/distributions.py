"""Source distribution and wheel of the last commit, and its tested versions: `python packaging/distributions.py OUT`.

The distributions are the same bytes in whatever folder, at whatever time and under whatever umask they are built, by
equal versions of Python, build and setuptools: constraints.txt has those of a release. Their time is that of the commit
(https://reproducible-builds.org/specs/source-date-epoch/). setuptools writes owners, modes and times of the files into
the source distribution, in the order of the file system; so it is written again, and the wheel is built from that.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
VERSIONS = "constraints.txt"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit as `git archive` gives it."""

    files: bytes
    """Tar file."""
    time: int
    """When it was committed, in seconds since 1970."""


def last_commit() -> Commit:
    """The last commit of the checkout. Ends the process where files differ from it, for they would not be in it."""
    if changed := git("status", "--porcelain").decode().splitlines():
        sys.exit(
            f"{ROOT}: {len(changed)} files differ from the last commit, the first is {changed[0][3:]}. A release is "
            f"built of a commit: commit them, or put them away with: git stash --include-untracked"
        )
    return Commit(files=git("archive", "HEAD"), time=int(git("log", "-1", "--format=%ct")))


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def build(kind: str, source: bytes, out: Path, time: int) -> Path:
    """Build the "sdist" or "wheel" of a tar file; its path, alone in `out`."""
    with TemporaryDirectory() as room, tarfile.open(fileobj=io.BytesIO(source)) as archive:
        archive.extractall(room, filter="data")
        made = [path for path in Path(room).iterdir() if path.is_dir() and path.name.startswith("glam_deploy-")]
        tree = made[0] if made else Path(room)
        command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(tree)]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(time)}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (path,) = out.iterdir()
    return path


def normalized(sdist: bytes, time: int) -> bytes:
    """The same files, sorted, of root, with modes 644 and 755, and one time."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as old,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            content = old.extractfile(member) if member.isfile() else None
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.mtime, member.pax_headers = time, {}
            new.addfile(member, content)
    return out.getvalue()


def main(out: Path) -> None:
    """Write both into `out`, which is created, beside the versions that were tested."""
    os.umask(0o022)  # the wheel has the modes of the files that setuptools copies
    commit = last_commit()
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as room:
        sdist = build("sdist", commit.files, Path(room, "sdist"), commit.time)
        source = normalized(sdist.read_bytes(), commit.time)
        wheel = build("wheel", source, Path(room, "wheel"), commit.time)
        (out / sdist.name).write_bytes(source)
        (out / wheel.name).write_bytes(wheel.read_bytes())
    shutil.copyfile(ROOT / VERSIONS, out / VERSIONS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
