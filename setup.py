"""Metadata of the glam-deploy distribution: three import packages, one install (see docs/architecture.md)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "glam_deploy/__init__.py").read_text("utf-8")).group(1)

DOCUMENTATION = Path("share/doc/glam-deploy")
"""In the prefix of an install; `glam_deploy.installation.documentation` finds it there."""
PAGES = [
    "README.md",
    "constraints.txt",
    "docs/*.md",
    "docs/tutorials/*",
    "docs/images/*",
    "docs/images/appliance/*",
    "docs/openapi/*",
    "benchmarks/README.md",
    "packaging/*",
    "examples/*.py",
]

CUDA = [
    "cuda-core>=1.2",
    "cuda-bindings>=13.5",  # before, an error of a missing driver does not name the library, and a process may crash
    "nvidia-cuda-nvrtc>=13.0.88",  # PyTorch 2.13 of PyPI demands this version, later ones others
]

# `make lowest-test` runs the tests with these lower bounds. Where an older version has a published hole that this
# package exposes (it reads files and answers peers that may be hostile), the bound is the first version without it and
# a comment names the hole.
REQUIRES = [
    "numpy>=2.1",
    "onnxruntime>=1.23",
    "opencv-python-headless>=4.14.0.94",  # libpng before 1.6.54: CVE-2026-22801; OpenCV before 4.12: CVE-2025-53644
    "pillow>=12.3",  # CVE-2026-25990, CVE-2026-40192, CVE-2026-55379
    "click>=8.2",
    "rich>=14.3",  # before, a bar that is not shown leaves blank lines
]

EXTRAS = {
    # checkpoint -> bundle, the PyTorch engine, the demo weights
    "export": [
        "torch>=2.13",  # CVE-2025-32434, CVE-2026-24747: `weights_only` could be got around
        "onnx>=1.23",  # before 1.21: CVE-2026-28500 and external data outside the model's folder
        "onnxscript>=0.7.2",  # before, Shape nodes that nothing needs stay in the graphs
        "safetensors>=0.6.2",
    ],
    # reading and writing DICOM; every decoder here has a permissive licence
    "dicom": [
        "pydicom>=3.0.2",  # CVE-2026-32711
        "pylibjpeg>=2.1",
        "pylibjpeg-openjpeg>=2.5",
        "pyjpegls>=1.5",
        "imagecodecs>=2026.1.14",
        "highdicom>=0.28",  # result objects
    ],
    # the appliance beside a PACS: `glam-deploy serve`; needs `dicom` too
    "appliance": [
        "pynetdicom>=3.0.4",
        "pydantic>=2.12",
        "starlette>=1.3.1",  # CVE-2025-62727, CVE-2026-48710, CVE-2026-54283
        "uvicorn>=0.40",
        "h11>=0.16",  # CVE-2025-43859
        "jinja2>=3.1.6",  # CVE-2025-27516
        "python-multipart>=0.0.30",  # CVE-2026-24486, CVE-2026-42561, CVE-2026-53537 to 53540
        "prometheus-client>=0.22",
        "requests>=2.33",  # CVE-2024-47081, CVE-2026-25645
        "urllib3>=2.7",  # CVE-2026-44431, CVE-2026-44432
        "authlib>=1.9",  # before 1.6.9: CVE-2026-27962, CVE-2026-28498
        "joserfc>=1.6.8",  # authlib 1.9 requires it
        "cryptography>=50",  # CVE-2026-69247 and before it the OpenSSL in its wheels, GHSA-537c-gmf6-5ccf
    ],
    # signed bundles: `sign`, `--trusted-key`; `appliance` has it too
    "sign": ["cryptography>=50"],
    "openvino": ["openvino>=2026.0"],
    # int8 graphs and the precision search, which runs OpenVINO
    "quantize": ["nncf>=3.4", "openvino>=2026.0"],  # NNCF 3.4 asks for the type u2
    # engines for NVIDIA GPUs; tensorrt-rtx also builds them where there is no GPU
    # by its CUDA 13 name: "tensorrt" 10.13.0 brings CUDA 12, and on Windows later ones too
    "tensorrt": ["tensorrt-cu13>=10.13.2", *CUDA],
    "tensorrt-rtx": ["tensorrt-rtx-cu13>=1.7.1.116", *CUDA],
    # ONNX Runtime on the GPU; takes the place of onnxruntime, which must be uninstalled
    "cuda": ["onnxruntime-gpu[cuda,cudnn]>=1.27", *CUDA],
    # `glam-deploy archive`
    "ray": [
        "ray>=2.60",  # releases before 2.52 have no token authentication
        "pyarrow>=26",  # before 14.0.1: CVE-2023-47248
        "fsspec>=2026.2",
        "aiohttp>=3.14.1",  # fsspec reads https:// with it; CVE-2026-22815 and others before
    ],
    "dev": [
        "pytest>=9",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.8",
        "filelock>=3.20",
        # an encoder that the decoders are tested with
        "python-gdcm>=3.2.6",
        "hypothesis>=6.140",
        "scipy>=1.15",
        "scikit-learn>=1.6",
        "httpx>=0.28",
        # the other side of notifications
        "standardwebhooks>=1",
        "aiosmtpd>=1.4.6",  # CVE-2024-34083 and before it CVE-2024-27305
        "hl7>=0.4.5",
        "hl7apy>=1.3.5",
        "fhir.resources>=8",  # pydantic 2
        "playwright>=1.50",
        "ruff>=0.14",
        "mypy>=1.18",
        "import-linter>=2.5",
        "build>=1.3",
        "setuptools>=77",
        "uv>=0.9",  # resolves for other systems
    ],
}


def documentation() -> list[tuple[str, list[str]]]:
    """What help texts and pages point to, in the folders of the checkout; nothing where only the code was copied."""
    if not (HERE / "docs").is_dir():
        return []
    found = (path for pattern in PAGES for path in HERE.glob(pattern) if path.is_file())
    files = sorted(path.relative_to(HERE) for path in found)
    folders = dict.fromkeys(file.parent for file in files)
    return [(str(DOCUMENTATION / folder), [str(f) for f in files if f.parent == folder]) for folder in folders]


setup(
    name="glam-deploy",
    version=VERSION,
    description="Take a GLAM mammography checkpoint to production: three ONNX graphs, a checked bundle, a runtime that finds lesions.",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The glam-deploy contributors",
    author_email="nobody@glam-deploy.invalid",  # there is no address yet; RFC 2606, 2: .invalid is never one
    keywords=["mammography", "DICOM", "ONNX", "OpenVINO", "TensorRT", "GLAM", "PACS"],
    project_urls={"Paper": "https://arxiv.org/abs/2106.07049"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["glam_deploy*"]), *find_packages("export"), *find_packages("benchmarks")],
    package_dir={"glam_export": "export/glam_export", "glam_bench": "benchmarks/glam_bench"},
    package_data={
        "glam_deploy": [
            "py.typed",
            "gpu/kernels/*.cu",
            "gpu/kernels/*.cuh",
            "appliance/state/*.sql",
            "appliance/web/templates/*",
            "appliance/web/static/*",
        ]
    },
    install_requires=REQUIRES,
    data_files=documentation(),
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["glam-deploy = glam_deploy.cli.main:main"]},
)
