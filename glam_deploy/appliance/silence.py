"""Which processes hang: those that say nothing in `state.db` any more, while others do.

Counted in looks, not in time. A look counts against a process only where another one has spoken since the look before:
while the machine is suspended nobody looks, a clock that jumps changes nothing, and where `state.db` takes no word from
anybody (a full disk, a program that keeps it locked) nobody is to blame.
"""

from collections.abc import Mapping

LOOK_S = 5.0
LOOKS = 60
"""In vain, 20 times `events.SILENT_S` in all: far more than any step without a sign of life takes."""


class Silence:
    """Remembers who spoke last when."""

    def __init__(self, looks: int = LOOKS) -> None:
        self._looks = looks
        self._beats: Mapping[str, float] = {}
        self._lives: Mapping[str, int] = {}
        self._silent: dict[str, int] = {}

    def look(self, beats: Mapping[str, float], lives: Mapping[str, int]) -> list[str]:
        """The names that hang now. `beats`: name -> its last sign of life; `lives`: name -> number of its process.

        A new process has all its looks before it, and so has one that was just named: it may take a while to die.
        """
        spoke = {name for name in lives if name in beats and beats[name] != self._beats.get(name)}
        anew = {name for name in lives if lives[name] != self._lives.get(name)}
        for name in lives:
            if name in spoke | anew:
                self._silent[name] = 0
            elif spoke:
                self._silent[name] += 1
        self._beats, self._lives = dict(beats), dict(lives)
        hung = [name for name in lives if self._silent[name] >= self._looks]
        self._silent |= dict.fromkeys(hung, 0)
        return hung
