"""Files of an instance with a result: arrays, overlay, and result objects in DICOM.

    objects/<digest>/<ab>/<instance>.npz            kind "npz": arrays of `outputs.writer.named_arrays`
                          <instance>.png            kind "png": overlay
                          <instance>.seg.dcm        kind "seg": Segmentation, BINARY
                          <instance>.sr.dcm         kind "sr": Measurement Report (TID 1500) on this image alone
                          <instance>.no-dicom.txt   why there is no SEG or SR

SEG and SR refer to an image by its SOPInstanceUID, and a viewer lays them over any image that has it. Images of one
data set with one SOPInstanceUID and different results therefore have none (`withdraw`).

Each file is complete under its name, or not there. The row of an instance is written after its files, and a row without
its files counts as not known (`dataset.Dataset`), so that a later run writes them.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from glam_deploy.archive.reader import DecodedView
from glam_deploy.archive.rows import finding_of_error
from glam_deploy.dicom.uids import is_uid, random_uid
from glam_deploy.durable import move_into_place, sync
from glam_deploy.errors import UsageError
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.outputs.writer import named_arrays, write_npz
from glam_deploy.runtime.result import Result

SUFFIXES: Mapping[str, str] = MappingProxyType({"npz": ".npz", "png": ".png", "seg": ".seg.dcm", "sr": ".sr.dcm"})
"""Kind of file -> end of its name."""
DICOM = frozenset({"seg", "sr"})
"""Kinds that belong to the study of a DICOM image."""
NO_DICOM = "no-dicom-object"
"""Code of the notice of an instance without the DICOM objects that were asked for."""
AMBIGUOUS_REASON = (
    "another image of the data set has the same SOPInstanceUID and another result. There is no SEG or SR of either, "
    "because it would refer to both: give each image a UID of its own at the source, or leave out the wrong one, and "
    "use another --out"
)
_UNFINISHED = ".unfinished"
"""Folder of the files that are being written, beside those that are complete."""
_NO_DICOM_SUFFIX = ".no-dicom.txt"
_NO_STUDY = "no SEG or SR, because the image is not DICOM, or its header has no UID of instance, series or study"


@dataclass(frozen=True, kw_only=True)
class ObjectPlan:
    """Files that are written for each instance with a result."""

    folder: Path
    """`objects/<digest>` of the result's folder, which all nodes see."""
    kinds: frozenset[str]
    """Keys of `SUFFIXES`."""
    device_uid: str = ""
    """Of `prepared`; "" without kinds of `DICOM`."""
    ambiguous: bool = False
    """Whether another image has the SOPInstanceUID of this one, which gets no kind of `DICOM` then."""

    def is_complete(self, instance: str) -> bool:
        """Whether an instance with a result has all of its files."""
        without = self.path(instance, _NO_DICOM_SUFFIX)
        return all(
            self.path(instance, SUFFIXES[kind]).exists() or (kind in DICOM and without.exists()) for kind in self.kinds
        )

    def path(self, instance: str, suffix: str) -> Path:
        """Path of a file of an instance."""
        return self.folder / instance[:2] / f"{instance}{suffix}"


def objects_folder(dest: Path, digest: str) -> Path:
    """`ObjectPlan.folder` of a partition."""
    return dest / "objects" / digest


def write_objects(plan: ObjectPlan, instance: str, view: DecodedView, result: Result) -> str:
    """Write the files of an instance; why it has no DICOM objects, "" if it has them or none were asked for.

    Raises OSError if a file cannot be written.
    """
    folder, unfinished = plan.path(instance, "").parent, plan.folder / _UNFINISHED
    for each in (folder, unfinished):
        each.mkdir(parents=True, exist_ok=True)
    reason = ""
    with tempfile.TemporaryDirectory(dir=unfinished) as drafts:
        if "npz" in plan.kinds:
            write_npz(Path(drafts, f"{instance}.npz"), named_arrays(result, full=False, save_input=False))
        if "png" in plan.kinds:
            Path(drafts, f"{instance}.png").write_bytes(to_png(overlay(view.mammogram.pixels, result)))
        if plan.kinds & DICOM and (reason := _write_dicom(plan, instance, view, result, Path(drafts))):
            Path(drafts, f"{instance}{_NO_DICOM_SUFFIX}").write_text(f"{reason}\n", "utf-8")
        for draft in sorted(Path(drafts).iterdir()):
            sync(draft)
            draft.replace(folder / draft.name)
    if plan.kinds & DICOM and not reason:
        plan.path(instance, _NO_DICOM_SUFFIX).unlink(missing_ok=True)
    sync(folder)
    return reason


def _write_dicom(plan: ObjectPlan, instance: str, view: DecodedView, result: Result, folder: Path) -> str:
    """Write the DICOM objects of an instance; "", or why there are none: its result stays."""
    from glam_deploy.archive.view_objects import ObjectOrigin, view_objects

    if plan.ambiguous:
        return AMBIGUOUS_REASON
    origin = ObjectOrigin(settings=plan.folder.name, device_uid=plan.device_uid)
    try:
        made = view_objects(plan.kinds, view, result, instance, origin)
    except Exception as error:
        return f"no SEG or SR: {finding_of_error(error).reason}"
    for kind, content in made.items():
        (folder / f"{instance}{SUFFIXES[kind]}").write_bytes(content)
    return "" if made else _NO_STUDY


def withdraw(plan: ObjectPlan, instance: str) -> bool:
    """Remove SEG and SR of an instance with an ambiguous UID; whether it has none of those that were asked for.

    If this process is killed, a repeated call completes it. Raises OSError if a file cannot be written or removed.
    """
    without = plan.path(instance, _NO_DICOM_SUFFIX)
    # the SR refers to the SEG
    found = [path for kind in ("sr", "seg") if (path := plan.path(instance, SUFFIXES[kind])).exists()]
    if found:
        draft = plan.folder / _UNFINISHED / without.name
        draft.parent.mkdir(exist_ok=True)
        draft.write_text(f"{AMBIGUOUS_REASON}\n", "utf-8")
        sync(draft)
        move_into_place(draft, without)
        for path in found:
            path.unlink(missing_ok=True)
        sync(without.parent)
    return without.exists()


def prepared(plan: ObjectPlan, dest: Path) -> ObjectPlan:
    """`plan` with the device UID of the data set in `dest`, if it has kinds of `DICOM`; removes what a killed run left.

    For one writer at a time. Raises UsageError if `device.uid` has something else, OSError if it cannot be written.
    """
    shutil.rmtree(plan.folder / _UNFINISHED, ignore_errors=True)
    return replace(plan, device_uid=_device_uid(dest)) if plan.kinds & DICOM else plan


def _device_uid(dest: Path) -> str:
    """The content of `device.uid`, which the first run makes that needs it."""
    path = dest / "device.uid"
    if not path.exists():
        draft = dest / ".unfinished-device.uid"
        draft.write_text(random_uid(), "ascii")
        sync(draft)
        move_into_place(draft, path)
    text = path.read_text("ascii", "replace")
    if not is_uid(text):
        raise UsageError(f"{path} has no UID: restore it, or delete it, which gives later objects another device UID")
    return text
