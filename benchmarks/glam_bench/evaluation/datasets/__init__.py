"""Readers of public labelled sets of mammograms, one module for each; docs/datasets.md has layouts, rules and licences.

Nothing is downloaded. Every reader takes the folder that has the set, or a folder above it, finds tables by name and
images by the identifiers in the tables, and counts in `LabelledSet.remarks` what the tables list and it cannot use.
"""

from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from glam_bench.evaluation.labelled import LabelledSet
from glam_deploy.errors import UsageError
from glam_deploy.installation import require

_MODULES = MappingProxyType(
    {"cbis-ddsm": "cbis_ddsm", "inbreast": "inbreast", "vindr-mammo": "vindr_mammo", "cmmd": "cmmd"}
)
NAMES = tuple(_MODULES)


def open_dataset(name: str, folder: Path, *, split: str | None = None) -> LabelledSet:
    """The labelled set `name` (one of NAMES) in `folder`; reads tables, outlines and headers, no pixels.

    `split`: a part of the set, by its own name for it; None means all of it. Raises UsageError for an unknown name or
    split, for files that are missing (with the expected layout) and for wrong cells (with file, line and value), and
    BackendUnavailable without the extra `dicom`.
    """
    if name not in _MODULES:
        raise UsageError(f"there is no labelled set {name!r}, expected one of {', '.join(NAMES)}")
    require("dicom")
    found: LabelledSet = import_module(f"{__name__}.{_MODULES[name]}").read_set(folder, split)
    return found
