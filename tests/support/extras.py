"""What README promises for each install line: commands, the extras that they need, and packages that a line lacks."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LINES = (
    "",
    "dicom",
    "export",
    "export,dicom",
    "dicom,appliance",
    "openvino,dicom",
    "dicom,ray",
    "quantize",
    "tensorrt-rtx",
)
"""The extras of each documented install line."""

BRINGS = {"appliance": {"sign"}, "quantize": {"openvino"}, "tensorrt-rtx": {"tensorrt", "cuda"}}
"""Extra -> others that it stands in for: it installs the same packages, or ones that serve as well. (With those of
`cuda` that it brings, `onnx-cuda` is refused for its ONNX Runtime: by the words of its own.)"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One use of a program. Words in braces are keys of `support.material.material`."""

    name: str
    words: str
    """Arguments of the program."""
    needs: tuple[str, ...] = ()
    """Groups of extras ("export,dicom") in the order in which it asks for them; the first that is missing is named."""
    code: int = 0
    """Exit code where it has them."""
    program: str = "glam_deploy"
    """What `python -m` runs."""
    quick: str | None = None
    """Other arguments for the test in one process: those of `words` take long, or start processes."""
    quick_code: int = 0
    apart: bool = False
    """It works in processes of its own, so the test in one process says nothing about it."""

    def refused_for(self, line: str) -> str | None:
        """The group of extras that an install line lacks; None where it has all."""
        having = {*line.split(",")}
        having |= {other for extra in having for other in BRINGS.get(extra, ())}
        return next((group for group in self.needs if not {*group.split(",")} <= having), None)


APPLIANCE = ("dicom,appliance",)
ARCHIVE = "archive {png} --bundle {bundle} --out {out}"
RUN = "run {png} --bundle {bundle} --out {out}"
BENCH = "bench --bundle {bundle} --engine onnx --no-ladder --no-files --quick --out {out}"

CASES = (
    # 4 with OpenVINO: it drops an input of the tiny bundle's fusion graph, which a real graph reads
    Case(name="version", words="--version"),
    Case(name="inspect", words="inspect --bundle {bundle}"),
    Case(name="verify", words="verify --bundle {bundle}"),
    Case(name="sign", words="sign --bundle {bundle} --key {none}", needs=("sign",), code=2),
    Case(name="verify, signed", words="verify --bundle {bundle} --trusted-key {none}", needs=("sign",), code=2),
    Case(name="run, PNG", words=RUN),
    Case(name="run, npy", words="run {npy} --standardized --bundle {bundle} --out {out}"),
    Case(name="run, DICOM", words="run {exam} --bundle {bundle} --out {out}", needs=("dicom",)),
    Case(name="run, OpenVINO", words=f"{RUN} --engine openvino --ungated", needs=("openvino",), code=4),
    Case(name="run, PyTorch", words=f"{RUN} --engine torch", needs=("export",), code=3),  # the bundle has no weights
    Case(name="run, TensorRT", words=f"{RUN} --engine fp16", needs=("tensorrt",), code=3),  # there is no GPU
    Case(name="run, CUDA", words=f"{RUN} --engine onnx-cuda", needs=("cuda",), code=3),
    Case(name="archive", words=ARCHIVE, needs=("ray",), quick=f"{ARCHIVE} --readers 0", quick_code=2),
    Case(
        name="archive, SEG",
        words=f"{ARCHIVE} --write seg",
        needs=("ray,dicom",),
        quick=f"{ARCHIVE} --write seg --pseudonyms {{none}}",
        quick_code=2,
    ),
    Case(name="gate", words="gate --bundle {gated} --engine openvino --images {png}", needs=("openvino",), code=4),
    Case(
        name="gate, demo exam",
        words="gate --bundle {bundle} --engine onnx-winograd --reference onnx",
        needs=("export,dicom",),
        code=4,  # the exam is made, and the tiny bundle has no such graph
        quick="gate --bundle {none} --engine onnx",
        quick_code=2,
    ),
    Case(name="export", words="export --weights {none}", needs=("export",), code=2),
    Case(name="export, int8", words="export --weights {none} --precision int8", needs=("export", "quantize"), code=2),
    Case(name="export, auto", words="export --weights {none} --precision auto", needs=("export", "quantize"), code=2),
    Case(
        name="build",
        words="build --bundle {none} --engine fp16 --compute-capability 8.9",
        needs=("tensorrt",),
        code=2,
    ),
    Case(name="bench", words=f"{BENCH} --images {{png}}", quick="bench --bundle {none}", quick_code=2),
    Case(
        name="bench, demo exam",
        words=BENCH,
        needs=("dicom",),
        quick="bench --bundle {none}",
        quick_code=2,
    ),
    Case(name="bench compare", words="bench compare {results} {results}"),
    Case(name="run-dir", words="run-dir {exam} {out} --bundle {bundle}", needs=APPLIANCE),
    Case(name="serve", words="serve --config {config} --role nonsense", needs=APPLIANCE, code=2),
    Case(name="check-config", words="check-config --config {config}", needs=APPLIANCE),
    Case(name="route", words="route {exam} --config {config}", needs=APPLIANCE, code=1),  # a folder is no file
    Case(name="doctor", words="doctor --config {config}", needs=APPLIANCE),
    Case(name="queue", words="queue list --config {config}", needs=APPLIANCE, code=2),  # nothing has come yet
    Case(name="triton", words="triton --bundle {bundle} --out {out}"),
    Case(name="demo", words="demo --out {occupied}", needs=("export,dicom",), code=2),
    Case(name="report", program="glam_bench.report", words="{results} --out {out}.html"),
    Case(name="half_parity", program="glam_bench.half_parity", words="a {png} --bundle {bundle}", needs=("export",)),
    Case(name="first_light", program="glam_bench.first_light", words="--bundle {bundle} --out {out}", quick="--help"),
    Case(name="receive", program="glam_bench.receive", words="--folder {none}", needs=APPLIANCE, code=2),
    Case(name="latency", program="glam_bench.appliance_latency", words="--bundle {none}", needs=APPLIANCE, code=2),
    Case(
        name="gpu_check",
        program="glam_bench.gpu_check",
        words="--bundle {bundle}",
        needs=("tensorrt-rtx",),
        code=3,  # there is no GPU
        apart=True,
    ),
)


def absent_packages(line: str) -> frozenset[str]:
    """Import names that this environment has and an install with these extras has not, by the metadata of all."""
    every_extra = metadata("glam-deploy").get_all("Provides-Extra", [])
    lacking = distributions(every_extra) - distributions(line.split(","))
    return frozenset(name for name, givers in _givers().items() if givers <= lacking)


@cache
def _givers() -> dict[str, set[str]]:
    """Import name -> names of the distributions that have it."""
    return {name: {*map(canonicalize_name, givers)} for name, givers in packages_distributions().items()}


def distributions(extras: Iterable[str]) -> set[str]:
    """Names of what glam-deploy with these extras installs, and of what that requires, and so on."""
    found: set[tuple[str, str]] = set()
    waiting = [("glam-deploy", extra) for extra in ("", *extras)]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += _required(*one)
    return {name for name, _ in found}


@cache
def _required(name: str, extra: str) -> tuple[tuple[str, str], ...]:
    """(distribution, extra) of each requirement of a distribution with an extra, "" for none."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:  # one that is not installed here either
        return ()
    asked = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": extra})]
    return tuple((canonicalize_name(one.name), each) for one in asked for each in ("", *one.extras))


def distributions_of(extra: str) -> tuple[dict[str, set[str]], set[str]]:
    """What an extra asks for itself -> its import names here (none where it is not installed); all names, closed."""
    asked = {name for name, _ in _required("glam-deploy", extra)} - {name for name, _ in _required("glam-deploy", "")}
    closed = distributions([extra])
    names = {name: {package for package, givers in _givers().items() if name in givers} for name in asked}
    return names, {package for package, givers in _givers().items() if givers & closed}
