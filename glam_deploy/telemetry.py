"""Disables the telemetry of other libraries. `glam_deploy` calls it at its own import, before it imports them.

- ONNX Runtime, from 1.29 on, sends usage events to Microsoft by default on Linux. It looks up the host, and keeps a
  device identifier and a database of events in the home folder. It reads the environment variable ORT_DISABLE_TELEMETRY
  once, when onnxruntime is imported; child processes inherit the variable.
- OpenVINO and NNCF send events to Google Analytics through the package openvino_telemetry, when they are imported and
  when a model is converted or quantized. An entry of None in `sys.modules` makes that import fail; both libraries then
  work without telemetry.

torch, onnx, onnxscript, OpenCV, pydicom and the others have no telemetry: `make network-test` checks the system calls.
"""

import os
import sys
import warnings

ORT_VARIABLE = "ORT_DISABLE_TELEMETRY"


def switch_off() -> None:
    """Disable telemetry in this process and its child processes.

    A library that this process imported earlier has already started its telemetry. Its recording is stopped, and a
    UserWarning names the environment variable or the import order that prevents the start.
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
    """Replace the method that sends, because importers already have a reference to the class."""
    if sys.modules["openvino_telemetry"] is None:
        return
    from openvino_telemetry.utils.sender import TelemetrySender

    if TelemetrySender.send is not _drop:
        TelemetrySender.send = _drop
        _warn("openvino or nncf", "import glam_deploy before it, or run: opt_in_out --opt_out")


def _drop(*message: object) -> None:
    """Replacement of `TelemetrySender.send` that sends nothing."""


def _warn(library: str, remedy: str) -> None:
    warnings.warn(
        f"{library} was imported before glam_deploy, with its telemetry enabled: the events that it has recorded are "
        f"in the home folder and may be sent. Recording is now disabled. To prevent this, {remedy}.",
        stacklevel=5,
    )
