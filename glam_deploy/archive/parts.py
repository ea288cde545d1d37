"""Parquet parts of the two tables of one partition, each with its checksum in the ledger.

A part is written to a temporary file, synchronized and renamed. The ledger gets its SHA-256 before it gets its name, so
that what a killed process left can be checked too.
"""

import errno
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glam_deploy.archive.identifiers import UIDS
from glam_deploy.archive.ledger import Ledger
from glam_deploy.archive.rows import SCORES, ViewRow
from glam_deploy.durable import move_into_place, sync
from glam_deploy.errors import UsageError, fault

if TYPE_CHECKING:
    import pyarrow as pa

VIEWS, FILES = "views", "files"
TABLES = (VIEWS, FILES)
TEMPORARY = ".unfinished-"
_DAMAGED = ".damaged-"
_PART = re.compile(r"part-\d{6,}")


class Parts:
    """The parts of one partition; `ledger` has their checksums."""

    def __init__(self, dest: Path, digest: str, ledger: Ledger) -> None:
        self._dest, self._digest, self._ledger = dest, digest, ledger

    def place(self, table: str, name: str) -> str:
        """Path of a part in the folder of the data set."""
        return f"{table}/bundle={self._digest}/{name}.parquet"

    def prepare(self) -> None:
        """Make the folders, without what a killed process did not finish."""
        for table in TABLES:
            self._folder(table).mkdir(parents=True, exist_ok=True)
            for left in self._folder(table).glob(f"{TEMPORARY}*"):
                left.unlink()

    def check(self, table: str) -> Iterator[tuple[str, str]]:
        """Name and SHA-256 of each part of a table, "" for a damaged one. Reads all bytes of all parts.

        A part without checksum in the ledger, as after the loss of the ledger, is decoded instead, which checks the CRC
        of each page. Raises UsageError for a Parquet file of somebody else, whose rows every reader of the table would
        get.
        """
        for path in sorted(self._folder(table).glob("*.parquet")):
            if not _PART.fullmatch(path.stem):
                raise UsageError(f"{path} is no part of this data set: move it out of the folder")
            expected = self._ledger.checksums(self.place(table, path.stem))
            found = _sha256(path)
            is_whole = found in expected if expected else _is_readable(path, table)
            yield path.stem, found if is_whole else ""

    def set_aside(self, table: str, name: str) -> None:
        """Rename a damaged part, so that no program reads it."""
        path = self._path(table, name)
        path.replace(path.with_name(f"{_DAMAGED}{name}"))

    def read(self, table: str, name: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Rows of a part, with all columns for None; [] if the table has no such part.

        Raises UsageError for a part that was damaged after `check`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(table, name)
        if not path.exists():
            return []
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                rows: list[dict[str, Any]] = file.read(columns).to_pylist()
        except (pa.ArrowException, OSError):
            raise UsageError(
                f"{path} has been damaged since this run began: run the same command again, which computes its rows "
                "again, and check the disk"
            ) from None
        return rows

    def publish(self, table: str, name: str, rows: Sequence[dict[str, object]]) -> None:
        """Write a part; it is complete under its name, or not there."""
        content = _encoded(table, rows)
        place, sha256 = self.place(table, name), hashlib.sha256(content).hexdigest()
        self._ledger.expect(place, sha256)
        draft = self._folder(table) / f"{TEMPORARY}{name}"
        try:
            draft.write_bytes(content)
            sync(draft)
            move_into_place(draft, self._path(table, name))
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        self._ledger.confirm(place, sha256)

    def _folder(self, table: str) -> Path:
        return self._dest / table / f"bundle={self._digest}"

    def _path(self, table: str, name: str) -> Path:
        return self._dest / self.place(table, name)


def _sha256(path: Path) -> str:
    """SHA-256 of a file, which is read in pieces; "" if the disk cannot read it."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return ""


def _is_readable(path: Path, table: str) -> bool:
    """Whether a Parquet file can be decoded. Raises UsageError for one with other columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if names == schema(table).names:
                for _ in file.iter_batches():
                    pass
    except (pa.ArrowException, OSError):
        return False
    if names != schema(table).names:
        raise UsageError(f"{path} is no part of this data set: move it out of the folder")
    return True


def schema(table: str) -> "pa.Schema":
    """Schema of a table, without the column `bundle` of the partition's folder."""
    import pyarrow as pa

    text = pa.string()
    if table == FILES:
        texts = ("entry", "instance", "location", "version", "sha256", "outcome", "reason")
        return pa.schema([*((name, text) for name in texts), ("bytes", pa.int64())])
    box = pa.struct([(name, pa.int32()) for name in ("top", "left", "bottom", "right")])
    return pa.schema(
        [
            *((name, text) for name in ("instance", "entry", "sha256", "location", "patient", *UIDS.values())),
            *((name, text) for name in ("kind", "view", "status")),
            *((name, pa.float32()) for name in SCORES),
            ("patches", pa.list_(box)),
            ("notices", pa.list_(text)),
            ("error", text),
            ("reason", text),
            ("timings_ms", pa.map_(text, pa.float64())),
            ("time_ms", pa.float64()),
            *((name, text) for name in ("engine", "bundle_id", "gate", "made_by")),
        ]
    )


def unfit(row: ViewRow) -> str:
    """Why a row of `views` does not fit into the table, which would end the run for all others; "" if it does."""
    import pyarrow as pa

    try:
        pa.Table.from_pylist([row.to_arrow()], schema=schema(VIEWS))
    except Exception as error:  # of pyarrow, or of a value of another type
        return (
            f"the result does not fit into the table ({fault(error)}). This is a fault of glam-deploy or of a decoder; "
            "please report it"
        )
    return ""


def _encoded(table: str, rows: Sequence[dict[str, object]]) -> bytes:
    """The bytes of a Parquet file with a CRC of each page."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(table)), sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content
