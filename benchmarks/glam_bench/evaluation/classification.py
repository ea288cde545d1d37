"""How well scores tell classes apart: areas under curves, comparisons of networks, calibration."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from glam_bench.evaluation import statistics
from glam_bench.evaluation.labelled import LabelledSet
from glam_bench.evaluation.plain_list import CLASSES
from glam_bench.evaluation.records import UNITS, Areas, CalibrationOf, Comparison, Curves, Unit
from glam_bench.evaluation.units import Scored, Units, shared, units


def areas(labelled: LabelledSet, scored: Scored) -> Iterator[Areas]:
    """Areas of every score, class, level and rule."""
    scores = list(next(iter(scored.images.values())))
    for score in sorted(scores, key=lambda name: name != scored.final):
        for label in CLASSES:
            for unit in UNITS:
                found = units(labelled, scored, score, label, unit)
                if found.keys:
                    yield _areas(label, score, unit, found)


def _areas(label: str, score: str, unit: Unit, found: Units) -> Areas:
    precision = None if found.positive.all() else statistics.average_precision(found.scores, found.positive)
    return Areas(
        label=label,
        score=score,
        level=unit[0],
        rule=unit[1],
        units=len(found.keys),
        positive=int(found.positive.sum()),
        exams=len(set(found.exams)),
        auroc=statistics.estimate(statistics.auroc(found.scores, found.positive), found.exams),
        auprc=precision and statistics.estimate(precision, found.exams),
    )


def curves(labelled: LabelledSet, scored: Scored) -> Iterator[Curves]:
    """Curves of the final score over images; none for a class without both labels."""
    for label in CLASSES:
        found = units(labelled, scored, scored.final, label, UNITS[0])
        if found.positive.any() and not found.positive.all():
            yield Curves(
                label=label,
                roc=statistics.roc_curve(found.scores, found.positive),
                precision_recall=statistics.precision_recall_curve(found.scores, found.positive),
            )


def calibrations(labelled: LabelledSet, scored: Scored) -> Iterator[CalibrationOf]:
    """Calibration of the final score over images."""
    for label in CLASSES:
        found = units(labelled, scored, scored.final, label, UNITS[0])
        if found.keys:
            table = statistics.calibration(found.scores, found.positive)
            yield CalibrationOf(label=label, table=table)


def comparisons(labelled: LabelledSet, models: Sequence[Scored]) -> Iterator[Comparison]:
    """Every pair of networks, class, level and rule, by their final scores."""
    for first, second in combinations(models, 2):
        for label in CLASSES:
            for unit in UNITS:
                pair = [units(labelled, one, one.final, label, unit) for one in (first, second)]
                if found := _comparison((first.name, second.name), label, unit, *shared(*pair)):
                    yield found


def _comparison(names: tuple[str, str], label: str, unit: Unit, first: Units, second: Units) -> Comparison | None:
    """None where an area is undefined."""
    both = [statistics.auroc(one.scores, one.positive) for one in (first, second)]
    difference = statistics.estimate(statistics.difference(*both), first.exams)
    if difference is None:
        return None
    return Comparison(
        first=names[0],
        second=names[1],
        label=label,
        level=unit[0],
        rule=unit[1],
        units=len(first.keys),
        positive=int(first.positive.sum()),
        exams=len(set(first.exams)),
        bootstrap=difference,
        delong=statistics.delong(first.scores, second.scores, first.positive),
    )
