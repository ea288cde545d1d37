"""Checkpoint -> bundle. The only package that imports torch and onnx."""

import glam_deploy  # noqa: F401 - before any other library: it switches telemetry off
