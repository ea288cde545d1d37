"""Inputs of one run with the same SOPInstanceUID and different content."""

from pathlib import Path

from glam_deploy.records import AMBIGUOUS_UID, Notice


class SharedUids:
    """The first input with each SOPInstanceUID, of those with a result."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Path, str]] = {}

    def notices(self, path: Path, uid: str, sha256: str) -> tuple[Notice, ...]:
        """The notice of an input whose UID an earlier one has with other content; it names both files.

        `uid`: "" without one. `sha256`: of the content.
        """
        first, content = self._first.setdefault(uid, (path, sha256)) if uid else (path, sha256)
        if content == sha256:
            return ()
        message = (
            f"{path} has the SOPInstanceUID of {first}, and other content: by this UID a viewer or a table cannot tell "
            "their results apart. Give each image a UID of its own at the source, or leave out the wrong one"
        )
        return (Notice(code=AMBIGUOUS_UID, message=message),)
