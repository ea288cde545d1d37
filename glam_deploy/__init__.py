"""glam-deploy: GLAM breast-lesion detection from a checked bundle, with numpy and ONNX Runtime alone.

    import glam_deploy
    with glam_deploy.load("bundle", patches=1) as pipeline:
        result = pipeline("0_L-CC.png")
    result.predictions, result.patch_boxes_in_source, result.saliency_in_source()

Names below are imported when first used, so that importing this package costs nothing. Importing it switches off the
telemetry of the libraries that it uses, in this process and its children (`glam_deploy.telemetry`). The logger
"glam_deploy" says nothing unless the program sets `logging` up; see docs/outputs.md.
"""

import logging
import os
from importlib import import_module

from glam_deploy.telemetry import switch_off

switch_off()
del switch_off

__version__ = "0.1.0"

# OpenCV reads this once, when it is imported: records.MAX_PIXELS, the most pixels of an image that it decodes
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "100000000")

TYPE_CHECKING = False  # type checkers take it for true; the module `typing` is not imported for it
if TYPE_CHECKING:
    from glam_deploy.errors import GlamError
    from glam_deploy.reading import read
    from glam_deploy.records import Mammogram, View
    from glam_deploy.runtime.pipeline import Pipeline
    from glam_deploy.runtime.result import Result
    from glam_deploy.runtime.session import load

_HOMES = {
    "GlamError": "errors",
    "Mammogram": "records",
    "Pipeline": "runtime.pipeline",
    "Result": "runtime.result",
    "View": "records",
    "load": "runtime.session",
    "read": "reading",
}

__all__ = ["GlamError", "Mammogram", "Pipeline", "Result", "View", "__version__", "load", "read"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


logging.getLogger(__name__).addHandler(logging.NullHandler())
