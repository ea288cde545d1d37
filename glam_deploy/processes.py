"""Python processes that import nothing from the current folder.

A folder or file there that is named like a module (`numpy/`, `json.py`) would be imported in its place: `python -m` and
`python -c` put the current folder first on `sys.path`, unless they are started with -P (Python's command line, "-P").
"""

import sys


def python_command(*arguments: object) -> list[str]:
    """A command that runs this Python with these arguments, without the current folder on its `sys.path`."""
    return [sys.executable, "-P", *map(str, arguments)]


def leave_out_current_folder() -> None:
    """Take off `sys.path` what `python -m` has put there; to be called before other imports. Nothing under -P."""
    if not sys.flags.safe_path:
        del sys.path[0]
