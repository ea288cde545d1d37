"""A current folder from which nothing may be imported."""

from pathlib import Path

PACKAGES = (
    "numpy",
    "onnxruntime",
    "cv2",
    "PIL",
    "rich",
    "click",
    "torch",
    "onnx",
    "openvino",
    "pydicom",
    "glam_export",
)
MODULES = (
    "argparse",
    "csv",
    "dataclasses",
    "json",
    "random",
    "shlex",
    "statistics",
    "subprocess",
    "tempfile",
    "typing",
)
WORDS = "imported from the current folder"


def hostile(folder: Path) -> Path:
    """Make `folder` with packages and modules that end whoever imports them; libraries' and Python's own names."""
    trap = f"raise SystemExit({WORDS!r})\n"
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(trap)
    for name in MODULES:
        (folder / f"{name}.py").write_text(trap)
    return folder
