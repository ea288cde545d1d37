"""Metadata of the glam-deploy distribution: three import packages, one install (see docs/architecture.md)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "glam_deploy/__init__.py").read_text("utf-8")).group(1)

CUDA = ["cuda-core>=1.2", "cuda-bindings>=13.0", "nvidia-cuda-nvrtc>=13.0"]

EXTRAS = {
    # checkpoint -> bundle, the PyTorch engine, the demo weights
    "export": ["torch>=2.13", "onnx>=1.20", "onnxscript>=0.5", "safetensors>=0.5"],
    # reading and writing DICOM; every decoder here has a permissive licence
    "dicom": [
        "pydicom>=3.0",
        "pylibjpeg>=2.1",
        "pylibjpeg-openjpeg>=2.4",
        "pyjpegls>=1.5",
        "python-gdcm>=3.0.24",
    ],
    # the appliance beside a PACS: `glam-deploy serve`; needs `dicom` too
    "appliance": [
        "pynetdicom>=3.0",
        "highdicom>=0.28",
        "imagecodecs>=2025.8",
        "pydantic>=2.10",
        "starlette>=0.40",
        "uvicorn>=0.32",
        "jinja2>=3.1",
        "python-multipart>=0.0.20",
        "prometheus-client>=0.21",
        "requests>=2.32",
        "cryptography>=44",
    ],
    "openvino": ["openvino>=2025.4"],
    # int8 graphs and the precision search, which runs OpenVINO
    "quantize": ["nncf>=3.4", "openvino>=2025.4"],
    # engines for NVIDIA GPUs; tensorrt-rtx also builds them where there is no GPU
    "tensorrt": ["tensorrt>=10.13", *CUDA],
    "tensorrt-rtx": ["tensorrt-rtx-cu13>=1.7", *CUDA],
    # ONNX Runtime on the GPU; takes the place of onnxruntime, which must be uninstalled
    "cuda": ["onnxruntime-gpu[cuda,cudnn]>=1.27", *CUDA],
    "dev": [
        "pytest>=9",
        "pytest-timeout>=2.4",
        "hypothesis>=6.140",
        "scipy>=1.15",
        "httpx>=0.28",
        "playwright>=1.50",
        "ruff>=0.14",
        "mypy>=1.18",
        "import-linter>=2.5",
        "build>=1.3",
        "setuptools>=77",
    ],
}

setup(
    name="glam-deploy",
    version=VERSION,
    description="Take a GLAM mammography checkpoint to production: three ONNX graphs, a checked bundle, a runtime that finds lesions.",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["glam_deploy*"]), *find_packages("export"), *find_packages("benchmarks")],
    package_dir={"glam_export": "export/glam_export", "glam_bench": "benchmarks/glam_bench"},
    package_data={
        "glam_deploy": [
            "py.typed",
            "kernels/*.cu",
            "kernels/*.cuh",
            "appliance/state/*.sql",
            "appliance/web/templates/*",
            "appliance/web/static/*",
        ]
    },
    install_requires=[
        "numpy>=2.0",
        "onnxruntime>=1.20",
        "opencv-python-headless>=4.10",
        "pillow>=11",
        "click>=8.1",
        "rich>=13",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["glam-deploy = glam_deploy.cli.main:main"]},
)
