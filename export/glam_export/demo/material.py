"""Files of the demo: a checkpoint, an exam of four DICOM views, and the outlines of its lesions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
from safetensors.torch import save

from glam_deploy.agreement.metrics import dice
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.durable import write_whole
from glam_deploy.networks import NETWORKS
from glam_deploy.records import Box
from glam_deploy.runtime.result import Result
from glam_export.demo.phantom import PhantomView, phantom_exam
from glam_export.demo.weights import demo_state_dict

THRESHOLD = 0.5
"""Saliency from which a pixel counts as lesion."""
MASK_VALUES = (100, 200)
"""Grey of benign and malignant lesions in a mask file; 0 is everything else."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Comparison of one view's result with the lesions of its phantom."""

    dice: Mapping[str, float | None]
    """Class -> Dice of the fused map over THRESHOLD and the outline, source frame; None if both are empty."""
    lesion: str | None
    """Class of the view's lesion; None without lesion."""
    patch_on_lesion: bool | None
    """Whether a patch contains the centre of a lesion; None without lesion or without patches."""


def write_checkpoint(path: Path, network: str) -> None:
    """The demo weights of a network as safetensors; of several with the name `network` the first of NETWORKS."""
    spec = next(spec for spec in NETWORKS if spec.name == network)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(demo_state_dict(network=spec)))


def write_exam(folder: Path, masks: Path, seed: int) -> dict[Path, PhantomView]:
    """Write four views as MG DICOM, `<view>.dcm`, and their outlines as `<view>.png`; DICOM file -> its phantom.

    `masks` is another folder, because `glam-deploy run` searches folders and would read outlines as mammograms.
    """
    for place in (folder, masks):
        place.mkdir(parents=True, exist_ok=True)
    views = {folder / f"{view.view}.dcm": view for view in phantom_exam(seed)}
    for path, view in views.items():
        write_view(path, view.pixels, view=view.view, exam=Exam(seed=f"demo {seed}"))
        outline = cv2.imencode(".png", view.mask * MASK_VALUES[0])[1]
        write_whole(masks / f"{view.view}.png", bytes(outline))
    return views


def judge(view: PhantomView, result: Result) -> Judgement:
    """Compare a result with its phantom."""
    found = result.saliency_in_source() > THRESHOLD
    scores = {name: dice(found[i], view.mask == i + 1) for i, name in enumerate(result.network.classes)}
    boxes = [box for box in result.patch_boxes_in_source if box]
    hits = [_holds(box, lesion.row, lesion.column) for lesion in view.lesions for box in boxes]
    lesion = view.lesions[0].label if view.lesions else None
    return Judgement(dice=scores, lesion=lesion, patch_on_lesion=any(hits) if view.lesions and boxes else None)


def _holds(box: Box, row: float, column: float) -> bool:
    top, left, bottom, right = box
    return top <= row < bottom and left <= column < right
