"""Start of Python processes that import nothing from the current folder.

`python -m` and `python -c` put the current folder first on `sys.path` unless the option -P is given (Python's command
line, "-P"). A folder or file there with the name of a module (`numpy/`, `json.py`) would be imported instead of it.
"""

import sys


def python_command(*arguments: object) -> list[str]:
    """Command line of this Python interpreter with these arguments, without the current folder on `sys.path`."""
    return [sys.executable, "-P", *map(str, arguments)]


def leave_out_current_folder() -> None:
    """Remove the current folder, which `python -m` adds, from `sys.path`; no effect with -P. Call it before imports."""
    if not sys.flags.safe_path:
        del sys.path[0]
