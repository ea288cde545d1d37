"""From files to results: what the steps take one after another, and what they take together."""

from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.schema import Files

STEPS = ("decode", "preprocess", "network", "output")
ROW = 84.0


def draw(jobs: dict[str, Files], width: float) -> svg.Drawing:
    """Two bars a job, on a scale of its own: the sum of the steps, and the time that the whole job took."""
    entries = [(f"f-{name}", name) for name in STEPS] + [("base", "the whole job")]
    legend, y = svg.legend(entries, width)
    rows = [_job(name, job, y + i * ROW, width) for i, (name, job) in enumerate(jobs.items())]
    return svg.drawing(width, y + ROW * len(rows), "Steps from files to results, and the whole job", legend, *rows)


def times(job: Files) -> dict[str, float]:
    """Milliseconds of each step."""
    values = (job["decode_ms"], job["preprocess_ms"], job["network_ms"], job["output_ms"])
    return dict(zip(STEPS, values, strict=True))


def _job(name: str, job: Files, y: float, width: float) -> Markup:
    parts = times(job)
    longest = max([job["total_ms"], sum(parts.values()), 1e-9])
    scale = (width - 74) / longest
    return tag(
        "g",
        svg.heading(
            y + 14,
            f"{name}, {job['views']} view{'s' * (job['views'] != 1)}",
            f"{words.times(job['ratio'])} its slowest step",
            width,
        ),
        _stack(parts, y + 22, scale),
        svg.label(sum(parts.values()) * scale + 6, y + 34, words.duration(sum(parts.values())), "small"),
        svg.bar(0, y + 44, job["total_ms"] * scale, 15, "base"),
        svg.label(job["total_ms"] * scale + 6, y + 56, words.duration(job["total_ms"]), "small"),
        svg.line(job["slowest_ms"] * scale, y + 18, job["slowest_ms"] * scale, y + 64, "tick"),
    )


def _stack(parts: dict[str, float], y: float, scale: float) -> Markup:
    shapes, x = list[Child](), 0.0
    for name, ms in parts.items():
        shapes.append(svg.bar(x, y, ms * scale - 2, 15, f"f-{name}", tag("title", f"{name}, {words.duration(ms)}")))
        x += ms * scale
    return tag("g", *shapes)
