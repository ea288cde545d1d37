"""Which graphs an engine runs that has the local one in Winograd's form."""

from collections.abc import Mapping

from glam_deploy.bundle import WINOGRAD_FILE, Bundle, graph_file
from glam_deploy.errors import BundleError
from glam_deploy.networks import STAGES, Stage


def winograd_files(bundle: Bundle) -> Mapping[Stage, str]:
    """Stage -> file of the bundle, all FP32. Raises BundleError where the export did not make the form."""
    if WINOGRAD_FILE not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: has no {WINOGRAD_FILE}. Export the checkpoint again with --winograd, or choose an "
            f"engine without Winograd's form: onnx or openvino."
        )
    return {stage: graph_file(stage) for stage in STAGES} | {"local": WINOGRAD_FILE}
