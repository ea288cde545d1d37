"""What the pages read from the folder of a view's results; retention may have removed it."""

from pathlib import Path
from typing import Any

from glam_deploy.appliance.data import FINDING, REPORT
from glam_deploy.errors import InputError
from glam_deploy.json_records import JsonFault, from_json, parse_json
from glam_deploy.preprocess import frame
from glam_deploy.records import Box, Placement


def summary(results: Path) -> dict[str, Any]:
    """`ViewSummary` of the results as JSON values; empty if they have been removed."""
    try:
        found: dict[str, Any] = _json(results / FINDING)["summary"]
        return found
    except InputError:
        return {}


def notices(results: Path) -> list[dict[str, str]] | None:
    """Notices ("code", "message") of the view with these results; None if they have been removed."""
    try:
        found: list[dict[str, str]] = _json(results / REPORT)["warnings"]
        return found
    except InputError:
        return None


def seen_window(results: Path) -> Box | None:
    """The part of the image that the network saw, in the source frame; None if the results have been removed."""
    try:
        return frame.seen(placement(results)).source
    except InputError:
        return None


def placement(results: Path) -> Placement:
    """Position of the network's window in the mammogram. Raises InputError if it cannot be read."""
    try:
        return from_json(Placement, _json(results / REPORT)["preprocessing"])
    except JsonFault as error:
        raise InputError(f"{REPORT} of this view is of another release: {error}") from error


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} of this view cannot be read ({type(error).__name__})") from error
