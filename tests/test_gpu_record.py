"""The GPU figures in README and docs are those of the committed record of the H200."""

import json
from typing import Any

import pytest
from support.commands import ROOT

RECORD = json.loads((ROOT / "benchmarks/results/nvidia-h200-2026-11-28.json").read_text("utf-8"))


def results(step: str) -> dict[str, Any]:
    """What a finished step of the record measured."""
    return RECORD["steps"][step]["results"]  # type: ignore[no-any-return]


def page(name: str) -> str:
    """Text with single spaces, so that line breaks do not matter."""
    return " ".join((ROOT / name).read_text("utf-8").split())


@pytest.mark.parametrize("engine", ["fp16@onnx-cuda", "fp16@torch"])
@pytest.mark.parametrize("images, patches", [(1, 1), (1, 3), (1, 6), (4, 1)])
def test_chain_times_in_the_performance_page(engine: str, images: int, patches: int) -> None:
    run = results(f"chain_times:{engine}")[f"n={images},k={patches}"]
    stages = " | ".join(f"{run['stages'][stage]['p50']:.2f}" for stage in ("global", "local", "fusion"))
    whole = f"{run['resident']['gpu']['p50']:.2f}"
    hosts = " | ".join(f"{run['host_to_host'][kind]['p50']:.1f}" for kind in ("standardized", "raw"))
    assert f"| {images}, {patches} | {stages} | {whole} | {hosts} |" in page("docs/performance.md")


def test_baselines_in_the_performance_page() -> None:
    text = page("docs/performance.md")
    published = results("baselines")["torch fp32"]["n=1,k=1"]["chain"]["p50"]
    for title, step in (
        ("PyTorch TF32", "torch tf32"),
        ("PyTorch half, channels_last, eager", "torch half channels_last"),
    ):
        found = results("baselines")[step]["n=1,k=1"]["chain"]["p50"]
        assert f"| {title} | {found:.2f} | {published / found:.1f} |" in text
    for engine in ("fp16@onnx-cuda", "fp16@torch"):
        found = results(f"chain_times:{engine}")["n=1,k=1"]["resident"]["gpu"]["p50"]
        assert f"| {found:.2f} | {published / found:.1f} |" in text


@pytest.mark.parametrize(
    "title, step",
    [
        ("`standardize`, uint16", "standardize, uint16"),
        ("`standardize`, float32", "standardize, float32"),
        ("`propose`", "propose"),
        ("`crop`", "crop"),
        ("`propose` and `crop`", "propose and crop"),
        ("`fuse`", "fuse"),
        ("`examine`", "examine"),
    ],
)
def test_kernel_times_in_the_kernels_page(title: str, step: str) -> None:
    kernel = results("kernel_times")["n=1,k=1"][step]
    table = (ROOT / "docs/kernels.md").read_text("utf-8").partition("## Bytes")[2]
    row = next(row for row in table.splitlines() if row.startswith(f"| {title} |"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[5:7] == [f"{kernel['us'][kind]:.1f}" for kind in ("warm", "cold")]
    if "share" in kernel:
        assert cells[7] == f"{kernel['share']['copy'] * 100:.0f} %"


def test_bars_in_the_performance_page() -> None:
    text = page("docs/performance.md")
    found = {bar["name"]: bar for bar in RECORD["bars"]}
    missed = [bar["name"] for bar in RECORD["bars"] if not bar["held"]]
    assert text.count("**missed**") == len(missed) == 3
    assert "15.2 µs | holds" in text and f"{float(found['propose and crop, nothing in L2, us']['found']):.1f}" == "15.2"
    soak = results("soak:fp16@onnx-cuda")
    assert (soak["done"], soak["wrong"]) == (4000, 0)
    assert f"{soak['images_per_s']:.0f} images a second" in text


def test_claims_of_the_readme() -> None:
    text = page("README.md")
    assert RECORD["bars"][0]["found"] == "0 of 176" and "176 of 176 launches" in text
    parity = results("parity:fp16@onnx-cuda")
    assert sum(parity[f"k={k}"]["same_patches"] for k in (1, 3, 6)) == 27 and "27 of 27 cases" in text
    worst = min(min(parity[f"k={k}"]["worst_dice"].values()) for k in (1, 3, 6))
    assert f"worst Dice {worst:.4f}" in text
    raw = results("chain_times:fp16@torch")["n=1,k=1"]["host_to_host"]["raw"]["p50"]
    assert f"from a raw view in host memory to its result {raw:.0f} ms" in text
