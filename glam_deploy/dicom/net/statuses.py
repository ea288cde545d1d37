"""What the status of a C-STORE response means (PS3.4 table B.2-1, PS3.7 annex C)."""

from types import MappingProxyType

from glam_deploy.dicom.net.delivery import Outcome

SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
"""Of C-FIND: one more match (PS3.4 table C.4-1)."""

_WARNINGS = MappingProxyType({0xB000: "changed elements", 0xB006: "dropped elements", 0xB007: "doubts the SOP class"})
_FAILURES = MappingProxyType(
    {
        0x0122: "it does not support the SOP class",
        0x0124: "we are not authorized",
        0x0210: "duplicate message",
        0x0211: "it does not know the operation",
    }
)


def stored(status: int) -> tuple[Outcome, str]:
    """Outcome of a C-STORE, and the reason in words; "" for a plain success."""
    if status == SUCCESS:
        return Outcome.STORED, ""
    if status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB:
        return Outcome.STORED, f"warning 0x{status:04X}" + _more(_WARNINGS.get(status))
    if status >> 8 == 0xA7:
        return Outcome.NO_ROOM, f"status 0x{status:04X}: it is out of resources"
    return Outcome.REFUSED, f"status 0x{status:04X}" + _more(_FAILURES.get(status) or _kind(status))


def _kind(status: int) -> str:
    kinds = {0xA9: "the object does not match its SOP class"}
    return kinds.get(status >> 8) or ("it cannot understand the object" if status >> 12 == 0xC else "failure")


def _more(words: str | None) -> str:
    return f": {words}" if words else ""
