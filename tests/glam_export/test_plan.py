"""The steps of an export, listed from its options before anything runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import start_process
from support.export import WEIGHTS, load_stub

from glam_deploy.bundle import WINOGRAD_FILE
from glam_deploy.networks import Stage
from glam_deploy.precision import BF16_WINOGRAD, FP32, WINOGRAD, Recipe
from glam_export import exporter
from glam_export.exporter import ExportOptions, export_plan
from glam_export.steps.base import Draft
from glam_export.steps.load import first_manifest
from glam_export.steps.write import WriteGraphs, WriteWinograd

GOLDEN = "running the reference on the golden case"
END = ["writing the manifest", "comparing every graph with the reference"]
OPTIONAL = {
    "nncf",
    "openvino",
    "glam_export.steps.narrow",
    "glam_export.precision.quantize",
    "glam_export.precision.search",
}


@pytest.fixture(autouse=True)
def quantization_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "require", lambda *extras, user: None)


def steps(options: ExportOptions) -> list[str]:
    """Titles of the steps before the manifest, without the golden case, which runs before any graph is written."""
    first, *titles = export_plan(WEIGHTS, options).titles
    assert first == "reading weights.pt"
    assert titles[-2:] == END
    assert titles.index(GOLDEN) < titles.index("writing the graphs in fp32")
    return [title for title in titles[:-2] if title != GOLDEN]


def test_default() -> None:
    assert steps(ExportOptions()) == [
        "writing the graphs in fp32",
        "writing the graphs in fp16",
        "writing the weights",
    ]


def test_winograd_without_weights() -> None:
    assert steps(ExportOptions(precisions=("bf16",), winograd=True, keep_checkpoint=False)) == [
        "writing the graphs in fp32",
        "writing the graphs in bf16",
        "writing the local graph in Winograd's form",
    ]


def test_images_are_prepared_before_graphs_are_written() -> None:
    assert steps(ExportOptions(precisions=("int8",), keep_checkpoint=False)) == [
        "preparing the calibration images",
        "writing the graphs in fp32",
        "calibrating the graphs in int8",
    ]


def test_search() -> None:
    assert steps(ExportOptions(precisions=("int8",), search=True, keep_checkpoint=False))[2:] == [
        "calibrating the graphs in int8",
        "searching the fastest mixture of precisions",
        "writing the local graph in Winograd's form, if the search has chosen it",
    ]


@pytest.mark.parametrize(
    ("only_in_mixture", "mixture", "is_written"),
    [
        (False, None, True),
        (True, {"local": WINOGRAD}, True),
        (True, {"local": BF16_WINOGRAD}, True),
        (True, {"local": FP32}, False),
        (True, None, False),
    ],
)
@pytest.mark.usefixtures("wrong")
def test_winograd_form_of_a_mixture(
    tmp_path: Path, only_in_mixture: bool, mixture: Mapping[Stage, Recipe] | None, is_written: bool
) -> None:
    checkpoint = load_stub(WEIGHTS, key=None, ignore=())
    manifest = first_manifest(checkpoint, patches=1, precisions=("fp32",))
    draft = Draft(folder=tmp_path, checkpoint=checkpoint, manifest=replace(manifest, mixture=mixture))
    for step in (WriteGraphs(precision="fp32"), WriteWinograd(only_in_mixture=only_in_mixture)):
        draft = step.run(draft, lambda line: None)
    assert (tmp_path / WINOGRAD_FILE).exists() == is_written


def test_importing_the_exporter_loads_no_optional_library() -> None:
    code = f"import sys, glam_export.exporter; print(sorted({OPTIONAL!r} & sys.modules.keys()))"
    out, err = start_process(code=code).communicate()
    assert (out, err) == ("[]\n", "")
