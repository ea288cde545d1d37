"""evaluation.html: one page with every table and plot of an evaluation, no script, nothing from the network."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from glam_bench.evaluation.localization import FALSE_POSITIVES
from glam_bench.evaluation.overlap import RADIUS, THRESHOLDS
from glam_bench.evaluation.pictures import RULE, Pictures
from glam_bench.evaluation.plain_list import CLASSES
from glam_bench.evaluation.plots import Axes, Panel, Series, draw
from glam_bench.evaluation.records import DEFINITIONS, Areas, Evaluation, ModelResults
from glam_bench.evaluation.statistics import Curve, Estimate
from glam_bench.report import words
from glam_bench.report.html import Section, figure, paragraph, table
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.page import document
from glam_bench.report.pictures import data_uri
from glam_deploy.durable import write_whole
from glam_deploy.errors import counted

PAGE = "evaluation.html"
MINUS = "\u2212"

INTERVALS = (
    "Brackets: 95 % percentile bootstrap intervals, whole exams drawn with replacement, because images of one exam are "
    "not independent; none for fewer than ten exams."
)


def write(path: Path, found: Evaluation, pictures: Pictures) -> None:
    """Write the page. All data is escaped. Raises OSError."""
    sections = [
        _models(found),
        _areas(found),
        _comparisons(found),
        _dice(found),
        _global_local(found),
        _froc(found),
        _calibration(found),
        _pictures(found, pictures),
        _left_out(found),
    ]
    shown = [section for section in sections if section is not None]
    write_whole(path, document(f"glam-deploy evaluate: {found.name}", _top(found), shown).encode())


def _top(found: Evaluation) -> list[Child]:
    counts = [counted(found.images, "image"), counted(found.exams, "exam"), f"labels of the {found.label_level}"]
    positive = [f"{count} {label}" for label, count in found.positive.items()]
    outlined = [f"{count} with a {label} outline" for label, count in found.outlined.items() if count]
    lost = sum(len(model.left_out) for model in found.models)
    notices = [*found.remarks, *([f"{counted(lost, 'result')} missing: see Left out."] if lost else [])]
    items = [tag("li", notice) for notice in notices]
    return [
        paragraph(f"{found.when}, {', '.join([*counts, *positive, *outlined])}", class_="faint"),
        tag("div", tag("ul", *items), class_="card notices") if items else None,
    ]


def _models(found: Evaluation) -> Section:
    columns = (
        "name",
        "network",
        "final score",
        "engine",
        "patches",
        "images",
        "left out",
        "time of an image",
        "bundle",
    )
    rows = [
        [
            model.facts.name,
            model.facts.title,
            model.facts.final_score,
            words.plain(model.facts.engine),
            words.plain(model.facts.patches),
            str(model.facts.images),
            str(len(model.left_out)),
            words.duration(model.facts.time_ms),
            words.plain(model.facts.bundle and model.facts.bundle[:12]),
        ]
        for model in found.models
    ]
    return Section(
        "networks", "Networks", [table("What was evaluated; times are medians on this machine", columns, rows)]
    )


# scores


def _areas(found: Evaluation) -> Section:
    finals, pooled, others = list[list[str]](), list[list[str]](), list[list[str]]()
    for model in found.models:
        for one in model.areas:
            final = one.score == model.facts.final_score
            place = others if not final else finals if one.level == "image" else pooled
            place.append(_area_row(model.facts.name, one))
    columns = ("network", "class", "AUROC", "AUPRC", "score", "of", "positive")
    roc = _curves(found, lambda one: one.roc)
    precision = _curves(found, lambda one: one.precision_recall)
    roc_axes = Axes(title="ROC curves", across="1 \u2212 specificity", up="sensitivity", diagonal=True)
    pr_axes = Axes(title="Precision-recall curves", across="recall", up="precision")
    definition = (
        "AUROC is the Mann-Whitney statistic, equal scores counting half. AUPRC is average precision, the sum of "
        "(recall step) x precision without interpolation, as scikit-learn defines it. A breast or exam is positive if "
        "one of its images is; its score is the mean or the maximum over its images. "
    )
    parts: list[Child] = [
        paragraph(definition + INTERVALS),
        table("Final scores of images", columns, finals),
        _figure(roc, found, roc_axes, "ROC curves of the final scores over images."),
        _figure(precision, found, pr_axes, "Precision against recall of the final scores over images."),
        table("Final scores of breasts and exams", columns, pooled),
        *([table("Other scores", columns, others)] if others else []),
    ]
    return Section("areas", "Areas under the curves", parts)


def _area_row(model: str, one: Areas) -> list[str]:
    unit = one.level if one.rule == "image" else f"{one.level}, {one.rule}"
    return [model, one.label, _text(one.auroc), _text(one.auprc), one.score, unit, f"{one.positive} of {one.units}"]


def _curves(found: Evaluation, part: Callable[..., Curve]) -> list[Panel]:
    return _by_class(
        found,
        lambda number, model: (
            (one.label, Series(model=number, points=list(zip(part(one).across, part(one).up, strict=True))))
            for one in model.curves
        ),
    )


def _comparisons(found: Evaluation) -> Section | None:
    if not found.comparisons:
        return None
    rows = [
        [
            f"{one.first} {MINUS} {one.second}",
            one.label,
            one.level if one.rule == "image" else f"{one.level}, {one.rule}",
            _text(one.bootstrap),
            f"{one.delong.low:.3f} to {one.delong.high:.3f}" if one.delong else words.MISSING,
            f"{one.delong.p:.3g}" if one.delong else words.MISSING,
            f"{one.positive} of {one.units}",
        ]
        for one in found.comparisons
    ]
    columns = ("networks", "class", "of", "AUROC difference", "DeLong interval", "DeLong p", "positive")
    said = (
        "Differences of the final scores on the units that both networks have. The bracket is the paired bootstrap "
        "interval over exams. DeLong's test (1988) is two-sided and assumes independent units, which images and "
        "breasts of one exam are not: where the two disagree, trust the bootstrap. There is no correction for several "
        "comparisons."
    )
    return Section("comparisons", "Paired comparison", [paragraph(said), table("AUROC differences", columns, rows)])


def _calibration(found: Evaluation) -> Section:
    panels = _by_class(
        found,
        lambda number, model: (
            (one.label, series)
            for one in model.calibration
            for bins in [[(each.predicted, each.observed) for each in one.table.bins if each.images]]
            for series in (Series(model=number, points=bins), Series(model=number, points=bins, kind="dots"))
        ),
    )
    axes = Axes(title="Calibration", across="mean score", up="observed share", diagonal=True)
    errors, bins = list[list[str]](), list[list[str]]()
    for model in found.models:
        for one in model.calibration:
            name, shown = model.facts.name, one.table
            errors.append([name, one.label, f"{shown.expected_error:.3f}", f"{shown.brier:.3f}"])
            bins += [
                [name, one.label, f"{each.low:g} to {each.high:g}", *_share(each.images, each.predicted, each.observed)]
                for each in shown.bins
                if each.images
            ]
    said = (
        "Scores are not calibrated probabilities. This shows how far they are from it on these images, whose share of "
        "positives is rarely that of a screening population. Ten bins of equal width; the expected calibration error "
        "is the mean distance between score and observed share, weighted by images."
    )
    parts: list[Child] = [
        paragraph(said),
        _figure(panels, found, axes, "Observed share of positive images against the mean score of each bin."),
        table("Errors", ("network", "class", "expected calibration error", "Brier score"), errors),
        table("Bins", ("network", "class", "score", "images", "mean score", "observed"), bins),
    ]
    return Section("calibration", "Calibration", parts)


def _share(images: int, predicted: float, observed: float) -> list[str]:
    return [str(images), f"{predicted:.3f}", f"{observed:.3f}"]


# maps


def _dice(found: Evaluation) -> Section | None:
    rows = [
        [
            f"{model.facts.name}, {one.map}{' (final)' if one.map == model.facts.final_map else ''}",
            one.label,
            one.definition if one.threshold is None else f"at {one.threshold:g}",
            _text(one.mean),
            words.MISSING if one.deviation is None else f"{one.deviation:.3f}",
            str(one.images),
        ]
        for model in found.models
        for one in model.dice
    ]
    if not rows:
        return None
    panels = _by_class(
        found,
        lambda number, model: (
            (one.label, Series(model=number, points=list(zip(THRESHOLDS, one.mean, strict=True))))
            for one in model.dice_curves
            if one.map == model.facts.final_map
        ),
    )
    chosen = (
        f"the threshold with the highest mean Dice on the validation list {found.validation}"
        if found.validation
        else "the threshold with the highest mean Dice on the same images, which is optimistic"
    )
    said = (
        f"Two definitions: {DEFINITIONS['soft']}; {DEFINITIONS['threshold']}: {chosen}. In the network "
        "frame of 2944 x 1920 pixels, over the images whose mask of the class is not empty; coarser maps are upsampled "
        "by nearest neighbour. SD is the sample standard deviation over images. "
    )
    axes = Axes(title="Mean Dice against the threshold", across="threshold", up="mean Dice")
    parts: list[Child] = [
        paragraph(said + INTERVALS),
        _figure(panels, found, axes, "Mean Dice of the final maps at each threshold."),
        table("Dice", ("network, map", "class", "definition", "mean", "SD", "images"), rows),
    ]
    return Section("dice", "Dice", parts)


def _global_local(found: Evaluation) -> Section | None:
    panels = _by_class(
        found,
        lambda number, model: (
            (label, Series(model=number, points=points, kind="dots"))
            for label in CLASSES
            if (points := [(one.global_map, one.local_map) for one in model.global_local if one.label == label])
        ),
    )
    if not panels:
        return None
    caption = (
        "Soft Dice of the maps of patches against that of the global map; each dot is an image. Above the line, the "
        "local map is the better one."
    )
    axes = Axes(title="Local against global Dice", across="global map", up="local map", diagonal=True)
    return Section("global-local", "Global against local maps", [_figure(panels, found, axes, caption)])


def _froc(found: Evaluation) -> Section | None:
    rows = [
        [model.facts.name, one.label, *(f"{value:.3f}" for _, value in one.at), str(one.lesions), str(one.images)]
        for model in found.models
        for one in model.froc
    ]
    if not rows:
        return None
    panels = _by_class(
        found,
        lambda number, model: (
            (one.label, Series(model=number, points=list(zip(one.curve.across, one.curve.up, strict=True))))
            for one in model.froc
        ),
    )
    widest = FALSE_POSITIVES[-1]
    axes = Axes(title="FROC curves", across="false positives per image", up="sensitivity", widest=widest)
    said = (
        f"Marks are the highest cell of the final map, again and again, after all cells within {RADIUS} pixels of it "
        "are set to 0 (Liu et al. 2017, arXiv 1703.02442). A mark hits the lesion that the centre of its cell lies in, "
        "and several marks in one lesion count once (CAMELYON16). A lesion is a connected component of the mask. "
        "Images count that have an outline of the class or are labelled as without it."
    )
    columns = ("network", "class", *(f"at {most:g}" for most in FALSE_POSITIVES), "lesions", "images")
    caption = "Share of the lesions that are hit, against false positives per image, as the threshold falls."
    parts: list[Child] = [
        paragraph(said),
        _figure(panels, found, axes, caption),
        table("Sensitivity at false positives per image", columns, rows),
    ]
    return Section("froc", "FROC", parts)


def _pictures(found: Evaluation, pictures: Pictures) -> Section | None:
    if not pictures.images:
        return None
    parts: list[Child] = [
        paragraph(f"{RULE} Blue: benign; orange: malignant. The networks' final maps, drawn on one scale of 0 to 1.")
    ]
    for name in pictures.images:
        files = [("image with outlines", pictures.input(name))]
        facts = [model.facts for model in found.models]
        files += [(f"{one.name} ({one.title})", pictures.of(one.name, name)) for one in facts]
        shown = [(title, path) for title, path in files if path.is_file()]
        if shown:
            parts += [tag("h3", name), tag("div", *(_picture(*one, name) for one in shown), class_="strip")]
    return Section("pictures", "Images and maps", parts) if len(parts) > 1 else None


def _picture(title: str, path: Path, name: str) -> Markup:
    return tag("figure", tag("img", src=data_uri(path), alt=f"{name}: {title}"), tag("figcaption", title))


def _left_out(found: Evaluation) -> Section | None:
    rows = [[one.image, model.facts.name, one.status, one.reason] for model in found.models for one in model.left_out]
    if not rows:
        return None
    return Section("left-out", "Left out", [table("Images without a result", ("image", "network", "", "reason"), rows)])


# shared parts


def _by_class(found: Evaluation, series: Callable[[int, ModelResults], Iterable[tuple[str, Series]]]) -> list[Panel]:
    """A panel for each class that any network has."""
    every = [one for number, model in enumerate(found.models) for one in series(number, model)]
    panels = ((label, [one for name, one in every if name == label]) for label in CLASSES)
    return [Panel(title=label, series=shown) for label, shown in panels if shown]


def _figure(panels: Sequence[Panel], found: Evaluation, axes: Axes, caption: str) -> Markup | None:
    names = [model.facts.name for model in found.models]
    return figure(lambda width: draw(panels, names, axes, width), caption)


def _text(found: Estimate | None) -> str:
    if found is None:
        return words.MISSING
    interval = f" [{found.low:.3f}, {found.high:.3f}]" if found.low is not None else ""
    return f"{found.value:.3f}{interval}"
