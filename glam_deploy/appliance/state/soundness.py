"""Whether a `state.db` is undamaged, and holds only what this release writes into one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from glam_deploy.appliance.state.database import BUSY_SECONDS, is_current, make_tables
from glam_deploy.appliance.state.overview import integrity_error
from glam_deploy.errors import UsageError
from glam_deploy.installation import page

FOLDERS = frozenset({"spool", "quarantine", "results"})
"""Top folders of the data folder in which rows name files."""
_PLAIN = (
    "typeof({0}) = 'text' AND instr({0}, char(0)) = 0 AND {0} NOT GLOB '.*' AND {0} NOT GLOB '*/.*'"
    " AND {0} NOT GLOB '*//*' AND {0} NOT GLOB '*/'"
)
"""SQL: a path without empty, hidden and relative parts. Only other ones are looked at here, one by one."""
_PATHS = (("instance", "path"), ("quarantine", "path"), ("parcel_object", "path"), ("job_view", "folder"))


def damage(connection: sqlite3.Connection) -> str:
    """The first damage that SQLite finds in the file; "" if there is none."""
    try:
        return integrity_error(connection)
    except sqlite3.DatabaseError as error:
        return str(error)


def require_undamaged(path: Path) -> None:
    """Raises UsageError if the database at `path` is damaged. One that does not exist yet is not."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        if found := damage(connection):
            raise UsageError(
                f"{path} is damaged ({found}): move the data folder away, and restore a backup "
                f"({page('operations.md')}, Restore)"
            )


def unusable(connection: sqlite3.Connection) -> str:
    """Why a backup of this state could not be restored; "" if it could.

    The content of a state of an earlier version is not looked at, because it is converted first.
    """
    return damage(connection) or (foreign_content(connection) if is_current(connection) else "")


def foreign_content(connection: sqlite3.Connection) -> str:
    """What this release never writes: tables, columns or triggers of others, or a path that leads out of the data
    folder, which would be read, sent or removed; "" if there is nothing of the kind.

    `connection`: to a database of the current version. Texts quote no value, which may be an identifier.
    """
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.row_factory = sqlite3.Row
        make_tables(fresh)
        expected = set(_schema(fresh))
    found = set(_schema(connection))
    if differing := sorted(found ^ expected):
        return f"its tables are not those of this release ({differing[0]})"
    for table, column in _PATHS:
        below = " OR ".join(f"{column} GLOB '{folder}/*'" for folder in sorted(FOLDERS))
        plain = f"{_PLAIN.format(column)} AND ({below})"
        query = (
            f"SELECT {column} FROM {table} WHERE {column} NOT NULL AND NOT ({plain})"  # all names are of this module
        )
        if not all(_is_inside(name) for (name,) in connection.execute(query)):
            return f"a path of the table {table} leads out of the data folder"
    keys = f"SELECT key FROM job WHERE NOT ({_PLAIN.format('key')} AND key != '' AND key NOT GLOB '*/*')"
    if not all(_is_name(key) for (key,) in connection.execute(keys)):
        return "a key of the table job is no name of a folder"
    return ""


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    """Each table, column, index, view and trigger, as a text. SQLite's own tables are not mentioned."""
    rows = connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
    for kind, name in rows:
        yield f"{kind} {name}"
        if kind == "table":
            for _, column, typed, _, _, key, hidden in connection.execute(
                "SELECT * FROM pragma_table_xinfo(?)", (name,)
            ):
                yield f"column {name}.{column} {typed} {key} {hidden}"


def _is_inside(name: object) -> bool:
    if not isinstance(name, str) or "\0" in name:
        return False
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0] in FOLDERS and ".." not in parts


def _is_name(key: object) -> bool:
    return isinstance(key, str) and PurePosixPath(key).parts == (key,) and key not in (".", "..") and "\0" not in key
