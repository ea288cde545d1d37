"""glam-deploy: GLAM breast-lesion detection from a verified bundle; requires only numpy and ONNX Runtime.

    import glam_deploy
    with glam_deploy.load("bundle", patches=1) as pipeline:
        result = pipeline("0_L-CC.png")
    result.predictions, result.patch_boxes_in_source, result.saliency_in_source()

The public names below are imported on first use, so importing this package is fast. The import disables the telemetry
of the libraries that the package uses, in this process and its child processes (`glam_deploy.telemetry`). The logger
"glam_deploy" writes nothing unless the program configures `logging`; see docs/outputs.md.
"""

import logging
import os
from importlib import import_module

from glam_deploy.telemetry import switch_off

switch_off()
del switch_off

__version__ = "0.2.0"

# records.MAX_PIXELS: the maximum number of pixels of an image that OpenCV decodes; OpenCV reads it once, at its import
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "100000000")

TYPE_CHECKING = False  # type checkers treat this name as true; defining it here avoids the import of `typing`
if TYPE_CHECKING:
    from glam_deploy.errors import GlamError
    from glam_deploy.exams import exam_scores
    from glam_deploy.reading import read
    from glam_deploy.records import Mammogram, View
    from glam_deploy.runtime.pipeline import Pipeline
    from glam_deploy.runtime.result import Result
    from glam_deploy.runtime.session import load

_MODULES = {
    "GlamError": "errors",
    "Mammogram": "records",
    "Pipeline": "runtime.pipeline",
    "Result": "runtime.result",
    "View": "records",
    "exam_scores": "exams",
    "load": "runtime.session",
    "read": "reading",
}

__all__ = ["GlamError", "Mammogram", "Pipeline", "Result", "View", "__version__", "exam_scores", "load", "read"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


logging.getLogger(__name__).addHandler(logging.NullHandler())
