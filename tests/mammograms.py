"""Small mammograms for tests: made, edited, compressed and written."""

from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from glam_deploy.dicom.mammography import Encoding, build_view, save
from glam_deploy.records import Pixels, View

Edit = Callable[[Dataset], object]


def breast(view: View, *, bits: int = 12) -> Pixels:
    """uint16 [96, 70] (uint8 up to 8 bits), 0 but for noise of the full range at the chest wall."""
    pixels = np.zeros((96, 70), np.uint16 if bits > 8 else np.uint8)
    pixels[10:80, :40] = np.random.default_rng(bits).integers(1, 1 << bits, (70, 40))
    pixels[20, 5] = (1 << bits) - 1
    return pixels[:, ::-1].copy() if view.is_right else pixels


def write_mg(
    path: Path,
    edit: Edit = lambda _: None,
    *,
    view: View = View.L_CC,
    syntax: UID = ExplicitVRLittleEndian,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    for_processing: bool = False,
) -> Path:
    """Write `breast(view)` as a DICOM file, after `edit` has had its way with the data set."""
    encoding = Encoding(photometric=photometric, bits_stored=bits)
    dataset = build_view(breast(view, bits=bits), view=view, encoding=encoding, for_processing=for_processing)
    edit(dataset)
    save(dataset, path, transfer_syntax=syntax)
    return path


def transcode(path: Path, syntax: int) -> Path:
    """Compress the file in place with gdcm, to one of its `TransferSyntax` values."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path
