"""Switches off the telemetry of other libraries. `glam_deploy` does so when it is imported, before it imports them.

- ONNX Runtime, from 1.29 on, sends usage events to Microsoft by default on Linux. It looks up the host, and keeps a
  device identifier and a database of events in the home folder. It reads the environment variable ORT_DISABLE_TELEMETRY
  once, when onnxruntime is imported; child processes inherit the variable.
- OpenVINO and NNCF send events to Google Analytics through the package openvino_telemetry, when they are imported and
  when a model is converted or quantized. A module entry of None makes that import fail, and they go on without.

torch, onnx, onnxscript, OpenCV, pydicom and the others have no telemetry: `make network-test` watches the system calls.
"""

import os
import sys
import warnings

ORT_VARIABLE = "ORT_DISABLE_TELEMETRY"


def switch_off() -> None:
    """Forbid telemetry in this process and its children.

    A library that this process imported earlier has already started its telemetry. It is told to record nothing more,
    and a UserWarning says which variable or order of imports prevents the start.
    """
    already_off = os.environ.get(ORT_VARIABLE) == "1"
    os.environ[ORT_VARIABLE] = "1"
    if "onnxruntime" in sys.modules and not already_off:
        _stop_onnxruntime()
    if "openvino_telemetry" in sys.modules:
        _stop_openvino()
    else:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def _stop_onnxruntime() -> None:
    if (disable := getattr(sys.modules["onnxruntime"], "disable_telemetry_events", None)) is None:
        return  # a release that sends nothing
    disable()
    _warn("onnxruntime", f"set {ORT_VARIABLE}=1 in the environment, or import glam_deploy before onnxruntime")


def _stop_openvino() -> None:
    """Whoever imported it holds the class already, so its one way out is closed."""
    if sys.modules["openvino_telemetry"] is None:
        return
    from openvino_telemetry.utils.sender import TelemetrySender

    if TelemetrySender.send is not _drop:
        TelemetrySender.send = _drop
        _warn("openvino or nncf", "import glam_deploy before it, or run: opt_in_out --opt_out")


def _drop(*message: object) -> None:
    """In the place of the method that sends."""


def _warn(library: str, remedy: str) -> None:
    warnings.warn(
        f"{library} was imported before glam_deploy, with its telemetry switched on: what it recorded until now is in "
        f"the home folder and may be sent. From now on it records nothing. To prevent this, {remedy}.",
        stacklevel=5,
    )
