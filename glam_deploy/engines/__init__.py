"""One compiled graph behind one contract, whoever compiled it; `registry` opens them by name."""

import sys

# OpenVINO and NNCF report to their makers over the network when they are imported, if they find this package
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
