"""Benchmarks of glam-deploy: profiles of one runner, and a few programs of their own. See benchmarks/README.md."""

import sys

import glam_deploy  # noqa: F401 - before any other library: it switches telemetry off
from glam_deploy.processes import leave_out_current_folder

if sys.argv[:1] == ["-m"]:  # so Python says while it looks for a program of this package (documentation of sys.argv)
    leave_out_current_folder()
