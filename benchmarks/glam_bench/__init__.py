"""Measurements. A benchmark is no test: nothing here passes or fails."""

import sys

import glam_deploy  # noqa: F401 - before any other library: it switches telemetry off
from glam_deploy.processes import leave_out_current_folder

if sys.argv[:1] == ["-m"]:  # so Python says while it looks for a program of this package (documentation of sys.argv)
    leave_out_current_folder()
