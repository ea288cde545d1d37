"""Routing of a job: the origin of its images, from their senders and headers."""

from pathlib import Path

from glam_deploy.appliance.config.routes import Origin
from glam_deploy.appliance.state.jobs import JobView
from glam_deploy.dicom.read import read_stated_view, read_texts
from glam_deploy.errors import InputError


def origin_of_file(path: Path, calling_ae: str) -> Origin:
    """The origin of the image in a DICOM file. Raises DicomError if it cannot be read."""
    texts = read_texts(path, ("StationName", "InstitutionName", "Modality"))
    try:
        view = str(read_stated_view(path))
    except InputError:  # an image without one of the four views is routed too
        view = ""
    return Origin(
        calling_ae=calling_ae,
        station=texts["StationName"],
        institution=texts["InstitutionName"],
        modality=texts["Modality"],
        view=view,
    )


def origins_of(views: list[JobView], root: Path) -> list[Origin]:
    """The origins of a job's mammograms; those whose file cannot be read meet conditions of the sender only.

    `root`: the data folder.
    """
    found = []
    for view in views:
        calling_ae = view.sender.rpartition("@")[0]
        try:
            found.append(origin_of_file(root / view.path, calling_ae))
        except InputError:
            found.append(Origin(calling_ae=calling_ae, station="", institution="", modality="", view=view.view or ""))
    return found
