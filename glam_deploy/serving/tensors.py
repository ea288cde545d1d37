"""Inputs and outputs of the served pipeline: names, types and shapes. docs/serving.md describes them.

The arrays have the names, types and values of the `.npz` that `glam-deploy run` writes (`outputs.writer`).

Byte strings are uint8 tensors, not Triton's TYPE_STRING: the process of the Python backend decodes TYPE_STRING through
the binary interface of the numpy that the server was built with, before the model has the request. With another numpy
it reads wrong lengths, and ends with an error that fails all requests.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.networks import NetworkSpec, Tensor
from glam_deploy.outputs.report import done, to_text
from glam_deploy.outputs.writer import named_arrays
from glam_deploy.runtime.result import Result

DICOM, IMAGE = "DICOM", "IMAGE"
"""Inputs, of which a request has one: the bytes of a DICOM object, or a standardized image."""
REPORT, BOXES = "report", "patch_boxes_in_source"
"""Outputs besides the arrays."""
BYTES = Tensor(dtype="uint8", shape=(-1,))
"""A byte string of any length."""
NOWHERE = (-1, -1, -1, -1)
"""Box of a patch that is completely in the padding."""

Outputs = Mapping[str, NDArray[Any]]


def inputs_of(network: NetworkSpec) -> dict[str, Tensor]:
    """Name -> tensor without the batch axis. IMAGE: standardized, network frame."""
    return {DICOM: BYTES, IMAGE: Tensor(dtype="float32", shape=network.input_shape)}


def outputs_of(network: NetworkSpec, patches: int) -> dict[str, Tensor]:
    """Name -> tensor without the batch axis, as `outputs` makes them for a pipeline with `patches` patches.

    A network without patches has no outputs about patches, because Triton has no axes of length 0.
    """
    classes, computed = len(network.classes), {name for graph in network.graphs.values() for name in graph.outputs}
    found = dict.fromkeys(network.scores, Tensor(dtype="float32", shape=(classes,)))
    if "y_scale" in computed:
        found["y_scale"] = network.contract("global").outputs["y_scale"]
    found["saliency_global"] = Tensor(dtype="float32", shape=(classes, *network.map_shape))
    if patches:
        found["patch_locations"] = Tensor(dtype="int64", shape=(patches, 2))
        found[BOXES] = Tensor(dtype="int64", shape=(patches, 4))
    if network.has_patch_maps:
        side = network.patches.map_side or 0
        found["saliency_patches"] = Tensor(dtype="float32", shape=(patches, classes, side, side))
    if "attention" in computed:
        found["attention"] = Tensor(dtype="float32", shape=(patches,))
    return found | {REPORT: BYTES}


def outputs(result: Result) -> Outputs:
    """Output tensors of one image, with a batch axis of length 1. Raises InputError if the report has no JSON form.

    `report` is the text of the report that `run` writes, with null as `files`. Boxes are (top, left, bottom, right) of
    the part of each patch inside the source image, source frame, half-open; NOWHERE for a patch in the padding.
    """
    text = to_text(done(result, arrays_name=None, picture_name=None)).encode("utf-8", "backslashreplace")
    boxes = [box or NOWHERE for box in result.patch_boxes_in_source]
    found = {
        **named_arrays(result, full=False, save_input=False),
        BOXES: np.array(boxes, np.int64),
        REPORT: np.frombuffer(text, np.uint8),
    }
    return {name: np.array(array)[None] for name, array in found.items() if array.size}
