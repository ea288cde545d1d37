"""What is imported when: a package that was not asked for is neither needed nor paid for."""

import importlib
from pathlib import Path

import pytest
from PIL import Image
from support import engines as support_engines
from support.bundles import fill
from support.commands import PLAIN, ROOT, blocking, start_process

import glam_deploy

AFTER = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "pydicom", "gdcm", "cv2", "PIL", "rich", "click", "numpy", "cuda"}
APPLIANCE = ("pynetdicom", "highdicom", "pydantic", "starlette", "uvicorn", "jinja2", "prometheus_client")
OPTIONAL = ("torch", "onnx", "onnxscript", "safetensors", "openvino", "pydicom", *APPLIANCE)
"""What the plain install lacks."""
OWNERS_OF_OPTIONAL = (
    "glam_deploy.engines.openvino",
    "glam_deploy.dicom",
    "glam_deploy.appliance",
    "glam_deploy.archive.view_objects",
)
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "glam_deploy").rglob("*.py")
    if path.name != "__main__.py"
)


def said(code: str, *arguments: object) -> str:
    """Standard output of Python that runs `code` and ends well."""
    process = start_process(*arguments, code=code)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    return out


def imported(code: str, *arguments: object) -> set[str]:
    """Top-level packages that are there after `code`."""
    return set(said(code + AFTER, *arguments).splitlines()[-1].split())


def test_package_itself_costs_nothing() -> None:
    assert imported("import glam_deploy; glam_deploy.__version__") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_waits_for_nothing(arguments: list[str]) -> None:
    code = PLAIN.replace("main()", "exit_code()").replace("import main", "import exit_code")
    found = imported(code, *arguments)
    assert found & HEAVY == {"click"}


@pytest.mark.parametrize("command", ["run", "inspect", "verify", "export", "build", "demo"])
def test_help_of_a_command_loads_no_engine(command: str) -> None:
    found = imported("from glam_deploy.cli.main import exit_code; exit_code()", command, "--help")
    assert found & {"onnxruntime", "openvino", "torch", "onnx", "pydicom"} == set()


def test_run_over_a_png_needs_no_dicom_and_no_torch(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    fill(tmp_path / "bundle")
    Image.fromarray(support_engines.small_view().pixels).save(tmp_path / "a_L-CC.png")
    code = (
        "from support import engines as support_engines; support_engines.install()\n"
        "from glam_deploy.cli.main import exit_code; assert exit_code() == 0"
    )
    arguments = ("run", "--bundle", tmp_path / "bundle", "--out", tmp_path / "out", tmp_path / "a_L-CC.png")
    found = imported(code, *arguments)
    assert {"cv2", "PIL", "numpy"} <= found
    assert found & {*OPTIONAL, "onnxruntime", "gdcm", "glam_export"} == set()


def test_default_engine_brings_nothing_but_its_own_library() -> None:
    found = imported("import glam_deploy.engines.onnxruntime")
    assert found & {*OPTIONAL, "onnxruntime", "glam_export"} == {"onnxruntime"}


def test_every_module_of_the_plain_install_imports_but_the_owners() -> None:
    code = blocking(*OPTIONAL) + (
        "from importlib import import_module\n"
        "for name in sys.argv[1:]:\n"
        "    try: import_module(name)\n"
        "    except ModuleNotFoundError as error: print(name, error.name.partition('.')[0])\n"
    )
    lacking = dict(line.split() for line in said(code, *MODULES).splitlines())
    assert {"glam_deploy.engines.openvino": "openvino", "glam_deploy.dicom.read": "pydicom"}.items() <= lacking.items()
    assert [name for name in lacking if not name.startswith(OWNERS_OF_OPTIONAL)] == []


def test_public_names_resolve() -> None:
    assert sorted(glam_deploy.__all__) == glam_deploy.__all__
    public = {name: getattr(glam_deploy, name) for name in glam_deploy.__all__}
    homes = {name: importlib.import_module(value.__module__) for name, value in public.items() if name != "__version__"}
    assert all(getattr(home, name) is public[name] for name, home in homes.items())
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        glam_deploy.nonsense  # noqa: B018


def test_public_names_resolve_for_a_star() -> None:
    out = said("from glam_deploy import *; print(*sorted(n for n in dir() if n == '__version__' or n[0] != '_'))")
    assert out.split() == sorted(glam_deploy.__all__)
