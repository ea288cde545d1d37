"""A pydicom Dataset of the caller's -> the bytes of a DICOM file."""

import copy
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from glam_deploy.dicom.header import foreign_errors
from glam_deploy.errors import UsageError


def file_bytes(dataset: Dataset) -> bytes:
    """`dataset` in the DICOM file format (PS3.10 section 7.1), pixels as they are encoded in it; it is not changed.

    Raises UsageError where its file meta names no transfer syntax, DicomError where it cannot be encoded.
    """
    meta = getattr(dataset, "file_meta", None)
    if meta is None or not meta.get("TransferSyntaxUID"):
        raise UsageError(
            "the Dataset's file_meta has no TransferSyntaxUID, so its pixels cannot be decoded: set it, in a C-STORE "
            "handler of pynetdicom by `dataset.file_meta = event.file_meta`"
        )
    with foreign_errors("the Dataset cannot be written as a DICOM file"):
        whole = copy.copy(dataset)
        whole.preamble = bytes(128)
        whole.file_meta = copy.deepcopy(meta)
        whole.file_meta.FileMetaInformationGroupLength = 0  # filled in as it is written
        buffer = BytesIO()
        # not enforced: a view needs no instance UID to be read
        dcmwrite(buffer, whole, enforce_file_format=False)
        return buffer.getvalue()
