"""Model for the Python backend of NVIDIA Triton; `glam-deploy triton` copies this file as `<version>/model.py`.

The backend's process starts with the server's Python, without glam-deploy, and ignores PYTHONPATH. The parameter
`site_packages` of config.pbtxt names the folders of packages to add, separated by colons.
"""

import ctypes
import json
import site
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any


def add_packages(folders: list[str]) -> None:
    """Add folders of packages, with their .pth files, in front of those of the server's Python."""
    before = list(sys.path)
    for folder in folders:
        site.addsitedir(folder)
    sys.path[:] = [*(path for path in sys.path if path not in before), *before]


def import_failure(error: ImportError, folders: list[str]) -> str:
    """Message for an environment without glam-deploy or one of its packages."""
    python = ".".join(map(str, sys.version_info[:2]))
    return (
        f"glam_deploy cannot be imported by the server's Python {python} from {', '.join(folders) or 'no folder'} "
        f"({error}). Install glam-deploy[dicom] for Python {python} on the server, and write its site-packages folder "
        "into the parameter site_packages of config.pbtxt, or give it to `glam-deploy triton --site-packages`."
    )


def other_numpy() -> str:
    """Message if the server has imported another numpy than that of the added folders; else empty."""
    import numpy

    if (own := version("numpy")) == numpy.__version__:
        return ""
    return (
        f"the server's Python has imported numpy {numpy.__version__}, and glam-deploy is installed with numpy {own}: "
        "install the same version in both, or glam-deploy into the server's Python."
    )


def handed_over(array: Any) -> Any:
    """A DLPack capsule of a numpy array, whose memory the consumer releases; it has no destructor.

    Triton renames a capsule that it has taken to another name than that of the DLPack specification ("used_dltensor").
    The destructor of numpy's capsule then writes a stack trace to the server's log, for each tensor.
    """
    capsule = array.__dlpack__()
    ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
    return capsule


class TritonPythonModel:
    """Answers requests with one pipeline; see docs/serving.md for inputs and outputs."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the pipeline of this version. Raises TritonModelException, so that the model does not become ready."""
        import triton_python_backend_utils as triton

        config = json.loads(args["model_config"])
        folders = [one for one in config["parameters"]["site_packages"]["string_value"].split(":") if one]
        add_packages(folders)
        warnings.simplefilter("ignore")  # the server logs standard error, and warnings may quote a header
        try:
            from glam_deploy.errors import Caller, GlamError
            from glam_deploy.serving import backend
        except ImportError as error:
            raise triton.TritonModelException(import_failure(error, folders)) from error
        if fault := other_numpy():
            raise triton.TritonModelException(fault)
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        try:
            folder = Path(args["model_repository"], args["model_version"])
            self._pipeline = backend.open_version(folder, device)
        except GlamError as error:
            raise triton.TritonModelException(error.message_for(Caller.SERVER)) from error
        self._triton, self._backend = triton, backend

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request, in order: its outputs, or the error of this request alone."""
        from numpy import from_dlpack  # `as_numpy` has wrong strides if the server was built for another numpy

        given = [{one.name(): from_dlpack(one) for one in request.inputs()} for request in requests]
        answers = self._backend.answer(self._pipeline, given)
        return [self._response(one, request) for one, request in zip(answers, requests, strict=True)]

    def _response(self, answer: Any, request: Any) -> Any:
        triton = self._triton
        if isinstance(answer, self._backend.Refusal):
            code = triton.TritonError.INVALID_ARG if answer.of_input else triton.TritonError.INTERNAL
            return triton.InferenceResponse(error=triton.TritonError(answer.message, code))
        wanted = set(request.requested_output_names())
        tensors = [
            triton.Tensor.from_dlpack(name, handed_over(array)) for name, array in answer.items() if name in wanted
        ]
        return triton.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        """Release the pipeline."""
        self._pipeline.close()
