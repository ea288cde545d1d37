"""Valid inputs of the parsers, small, so that few of their bytes are pixels."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate
from support import streams, web
from support.bundles import facts
from support.tiff import samples_tiff

from glam_deploy.records import Pixels, View

SHAPE = (24, 20)
"""Rows and columns of every image."""
BITS = 12
REPORTS = Path(__file__).parents[1] / "glam_deploy/gpu/engines/reports"


def _pixels() -> Pixels:
    return streams.tissue(SHAPE, bits=BITS)


def dicom_files() -> Iterator[bytes]:
    """A mammogram in five transfer syntaxes."""
    plain = dcmread(io.BytesIO(web.dicom_file(View.L_CC, web.exam(1), _pixels())))
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        yield _saved(plain, syntax)
    plain.PixelData = encapsulate([streams.jpeg_ls_stream(_pixels(), BITS)])
    yield _saved(plain, uid.JPEGLSLossless)
    plain.PixelData = encapsulate([streams.rle_stream(_pixels(), BITS)], has_bot=False)
    yield _saved(plain, uid.RLELossless)


def _saved(dataset: Dataset, syntax: uid.UID) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    file = io.BytesIO()
    dataset.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return file.getvalue()


def rejection_notes() -> Iterator[bytes]:
    """A Key Object Selection document with the title Rejected for Quality Reasons (DCM 113001)."""
    note = dcmread(io.BytesIO(web.dicom_file(View.L_CC, web.exam(1), _pixels())), stop_before_pixels=True)
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = uid.KeyObjectSelectionDocumentStorage
    note.Modality, title, series, image = "KO", Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected for Quality Reasons"
    note.ValueType, note.ConceptNameCodeSequence = "CONTAINER", [title]
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.3.4"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3", [image]
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2", [series]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    file = io.BytesIO()
    note.save_as(file)
    yield file.getvalue()


def jpeg_lossless() -> Iterator[bytes]:
    for predictor in (1, 6):
        yield streams.jpeg_lossless_stream(_pixels(), BITS, predictor=predictor)
    yield streams.jpeg_lossless_stream((_pixels() >> 4).astype(np.uint8), 8)


def jpeg_ls() -> Iterator[bytes]:
    yield streams.jpeg_ls_stream(_pixels(), BITS)
    yield streams.jpeg_ls_stream((_pixels() >> 4).astype(np.uint8), 8)


def jpeg_2000() -> Iterator[bytes]:
    yield bytes(imagecodecs.jpeg2k_encode(_pixels(), level=0, codecformat="j2k"))
    yield streams.htj2k_stream(_pixels(), BITS)
    yield bytes(imagecodecs.jpeg2k_encode(_pixels(), level=0, codecformat="jp2"))


def rle() -> Iterator[bytes]:
    yield streams.rle_stream(_pixels(), BITS)


def _encoded(suffix: str, pixels: Pixels) -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


def pngs() -> Iterator[bytes]:
    yield _encoded(".png", _pixels())
    yield _encoded(".png", np.dstack([(_pixels() >> 4).astype(np.uint8)] * 3))


def tiffs() -> Iterator[bytes]:
    yield _encoded(".tiff", _pixels())
    yield samples_tiff(_pixels()[..., None])
    yield _encoded(".tiff", (_pixels() >> 4).astype(np.uint8))


def image_files() -> Iterator[bytes]:
    yield from pngs()
    yield from tiffs()
    np.save(array := io.BytesIO(), _pixels())
    yield array.getvalue()


def manifests() -> Iterator[bytes]:
    yield json.dumps({"schema_version": 2, "files": {}, **facts()}).encode()
    yield (Path(__file__).parents[1] / "glam_deploy/manifest_schema_1.json").read_bytes()


def ensembles() -> Iterator[bytes]:
    members = [{"folder": str(n), "checkpoint_sha256": f"{n:064x}"} for n in (1, 2)]
    yield json.dumps({"schema_version": 1, "members": members}).encode()


def layer_reports() -> Iterator[bytes]:
    """Of two releases of TensorRT."""
    yield from (path.read_bytes() for path in sorted(REPORTS.glob("*.json"))[::6])


def configurations() -> Iterator[bytes]:
    yield (Path(__file__).parents[2] / "packaging/glam.toml").read_bytes()
    lines = ("license_acknowledged = true", 'data = "d"', "[worker]", 'bundle = "b"')
    yield "\n".join((*lines, "[[targets]]", 'name = "a"', 'stow_url = "http://localhost/"')).encode()


def multiparts() -> Iterator[bytes]:
    kind = b'multipart/related; type="application/dicom"; boundary=end\n'
    part = b"--end\r\nContent-Type: application/dicom\r\nContent-Location: a\r\n\r\nDICM\r\n"
    yield kind + part + b"--end--\r\n"
    yield kind + part * 3 + b"--end--"


def view_names() -> Iterator[bytes]:
    names = ("0001_L-CC.png", "exam 7/LEFT_MLO.dcm", "P_00001_RIGHT_CC_1", "d8205a09c8173f44215ce36cd9d10c1a.dicom")
    yield from map(str.encode, names)


def view_tables() -> Iterator[bytes]:
    yield b"file,view,exam\na.png,L-CC,1\nb.png,RMLO,1\n"
    yield b"study_id;image_id;laterality;view_position\n1;a;L;CC\n1;b;R;MLO\n"


def label_tables() -> Iterator[bytes]:
    yield b"file,exam,benign,malignant,view\nlabels.csv,1,0,1,L-CC\n"


def archive_lists() -> Iterator[bytes]:
    yield b"location,etag,size\ns3://bucket/a.dcm,abc,17\n/data/b.dcm,,\n"
    yield b'"/data/a, b.dcm"\n/data/c.dcm\n'


def conditions() -> Iterator[bytes]:
    yield b"Manufacturer=HOLOGIC*\nStudyDate>=2020-01-31\nPatientAge<50\nRows!=1914"
