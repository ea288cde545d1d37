"""The device UID of an installation, which all its results have (PS3.3 section C.7.5.1)."""

import os

from glam_deploy.appliance.data import DataFolder, part_file
from glam_deploy.dicom.uids import is_uid, random_uid
from glam_deploy.durable import move_into_place
from glam_deploy.errors import UsageError
from glam_deploy.regular import SMALL_FILE, read_regular

_DEVICE = "device.uid"


def device_uid(data: DataFolder) -> str:
    """Device UID of this installation: made at the first start and kept in the data folder.

    Raises UsageError as `known_device_uid`.
    """
    if (known := known_device_uid(data)) is not None:
        return known
    made = random_uid()
    with part_file(data.root) as (part, file):
        file.write(made.encode())
        file.flush()
        os.fsync(file.fileno())
        move_into_place(part, data.root / _DEVICE)
    return made


def known_device_uid(data: DataFolder) -> str | None:
    """The device UID; None before the first start. Raises UsageError if its file cannot be read or holds no UID."""
    path = data.root / _DEVICE
    if not path.exists():
        return None
    remedy = "restore it from a backup, or remove it, after which new results are those of another device"
    try:
        text = read_regular(path, SMALL_FILE).decode("ascii", "replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if not is_uid(text):
        raise UsageError(f"{path} holds no UID (PS3.5 section 9.1): {remedy}")
    return text
