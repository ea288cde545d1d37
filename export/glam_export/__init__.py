"""Checkpoint -> bundle. The only package that imports torch and onnx.

Raises UsageError when it is imported in a folder that was deleted: oneMKL, which torch loads, ends the process there.
"""

import glam_deploy  # noqa: F401 - before any other library: it switches telemetry off
from glam_deploy.installation import require_current_folder

require_current_folder()
