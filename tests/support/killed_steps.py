"""A process that ends without any clean-up before its n-th step; imported by the programs of such processes."""

import os
import traceback
from collections.abc import Callable
from itertools import count
from typing import Any


def end_before(number: int, *places: tuple[Any, str]) -> None:
    """Let this process end with exit code 9 before call `number`, from 0, of all these functions together.

    A place is the owner of a function, such as a module or class, and its name there.
    """
    calls = count()
    for owner, name in places:
        setattr(owner, name, _counted(getattr(owner, name), calls, number))


def _counted(function: Callable[..., Any], calls: "count[int]", number: int) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            os._exit(9)
        return function(*arguments, **options)

    return counted


def exit_codes(lives: int, life: Callable[[int], object]) -> list[int]:
    """Exit code of each `life(0)`, `life(1)` ..., in processes forked one after another: 0 if it returned."""
    return [_exit_code(life, number) for number in range(lives)]


def _exit_code(life: Callable[[int], object], number: int) -> int:
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        life(number)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
