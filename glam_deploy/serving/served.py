"""What one version of a served pipeline is: bundle, engine and settings, from which its version number follows."""

from dataclasses import dataclass
from pathlib import Path

from glam_deploy import __version__
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.errors import BackendUnavailable, BundleError
from glam_deploy.json_records import JsonFault, from_json, json_sha256, parse_json, to_json

SERVED = "served.json"
"""File of the record in the folder of its version."""
BUNDLE = "bundle"
"""Folder of the bundle in the folder of the version."""


def version_number(digest: str) -> int:
    """Version number for Triton, 1..2^52: the first 13 hexadecimal digits of a SHA-256, plus 1.

    The same content has the same number in every repository; two contents share one with a probability of 2^-52.
    """
    return int(digest[:13], 16) + 1


@dataclass(frozen=True, kw_only=True)
class Served:
    """Everything that the results of a version depend on besides the image."""

    bundle: str
    """`Bundle.id`."""
    engine: str
    """Name in `engines.registry`, never "auto"."""
    engine_digest: str
    """`EngineIdentity.digest` of the engine when the version was written."""
    library: str
    """`EngineIdentity.library`, for messages."""
    release: str
    """Release of glam-deploy."""
    patches: int
    threads: int | None = None
    streams: int | None = None
    flavour: str | None = None
    ungated: bool = False
    """Whether the engine has no passed gate in the bundle and is used all the same."""

    @property
    def digest(self) -> str:
        """SHA-256 of all fields."""
        return json_sha256(to_json(self))

    @property
    def version(self) -> int:
        """Version number of the pipeline. Different records with the same number are refused by `repository.write`."""
        return version_number(self.digest)

    def check(self, bundle: Bundle, identity: EngineIdentity) -> None:
        """Check that a server's environment opens what was written. Raises BundleError, BackendUnavailable."""
        if bundle.id != self.bundle:
            raise BundleError(
                f"the bundle of this version has the id {bundle.id[:12]}, expected {self.bundle[:12]}: it was changed "
                f"in the repository. {_REPAIR}"
            )
        if __version__ != self.release or identity.digest != self.engine_digest:
            raise BackendUnavailable(
                f"the server's environment has glam-deploy {__version__} and {identity.library}, this version was "
                f"written for glam-deploy {self.release} and {self.library}, engine {self.engine}. {_AGAIN}"
            )


_REPAIR = "Remove the folder of this version, and write it again with `glam-deploy triton`."
_AGAIN = "Write the repository again with `glam-deploy triton`, run by the Python of the server's environment."


def read_served(folder: Path) -> Served:
    """The record in the folder of a version. Raises BundleError if it is missing, damaged or of another version."""
    try:
        served = from_json(Served, parse_json((folder / SERVED).read_bytes()))
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, JsonFault) else type(error).__name__
        raise BundleError(f"{folder.name}/{SERVED} cannot be read ({reason}). {_REPAIR}") from error
    if str(served.version) != folder.name:
        raise BundleError(f"{folder.name}/{SERVED} is of the version {served.version}: it was changed. {_REPAIR}")
    return served
