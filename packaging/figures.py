"""Figures of docs/performance.md, drawn from the committed results.

`python packaging/figures.py` writes them into docs/images, each for wide windows and for telephones (`-narrow`).
"""

import json
from pathlib import Path

from glam_bench.report import ladder_svg, style
from glam_bench.report.markup import raw
from glam_bench.report.plots import gpu_chain
from glam_bench.schema import read

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
WIDTHS = {"": 760.0, "-narrow": 330.0}
"""End of the name -> pixels: a README shows about 760, a telephone 390 with its margins."""
GPU_ENGINES = ("fp16@onnx-cuda", "fp16@torch")


def figures() -> dict[str, str]:
    """Name of the file -> SVG that stands alone, in light and dark."""
    bench = read(RESULTS / "bench_avx2.json")
    gpu = json.loads((RESULTS / "nvidia-h200-2026-11-28.json").read_text("utf-8"))
    chains = gpu_chain.chains(gpu["steps"], GPU_ENGINES)
    css = raw(style.standalone())
    found = {}
    for end, width in WIDTHS.items():
        found[f"ladder{end}.svg"] = ladder_svg(bench, width)
        found[f"gpu-chain{end}.svg"] = gpu_chain.draw(chains, width).standalone(css)
    return found


if __name__ == "__main__":
    for name, text in figures().items():
        (ROOT / "docs/images" / name).write_text(text, "utf-8")
