"""The reports on a study: drafted while its last view is written, and made anew where that draft is no longer true."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from support.web import Appliance, appliance, breast, configuration, dicom_file, exam

from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.jobs import Job, JobView, JobViewOutcome
from glam_deploy.appliance.work import result_objects
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.dicom.results.secondary_capture import BANNER_HEIGHT
from glam_deploy.records import View

ANOTHER_REASON = "made up: the disk lost it"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of each CAD SR that is made, what it is made of."""
    seen: list[str] = []

    def noted(outcomes: Any, *rest: Any, **more: Any) -> Any:
        seen.append(" ".join(outcome.outcome for outcome in outcomes))
        return write(outcomes, *rest, **more)

    write = result_objects.cad_sr
    monkeypatch.setattr(result_objects, "cad_sr", noted)
    return seen


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Appliance]:
    config = configuration(tmp_path)
    results = config.results.model_copy(update={"cad_sr": True})
    with appliance(config.model_copy(update={"results": results})) as site:
        site.receive_exam(1, (View.L_CC, View.R_CC))
        site.assemble()
        yield site


def published(site: Appliance, publisher: Publisher, job: Job, view: JobView) -> JobViewOutcome:
    publisher.reports.set_next_job(job, jobs.job_views(site.connection, job))
    return site.settled(job, view, publisher)


def test_reports_are_drafted_with_the_last_view_and_made_once(site: Appliance, made: list[str]) -> None:
    publisher, job = site.publisher(), site.claim()
    for view, drafted in zip(jobs.job_views(site.connection, job), ([], ["done done"]), strict=True):
        settled = published(site, publisher, job, view)
        assert made == drafted, "before anything is settled"
        jobs.record_outcomes(site.connection, job, [settled])
    objects = publisher.reports.publish(job, jobs.job_views(site.connection, job))
    assert made == ["done done"]
    assert len(objects) == 2 + 1 and all((site.context.data.root / each.path).is_file() for each in objects)


def test_a_draft_of_a_view_that_failed_after_all_is_not_published(site: Appliance, made: list[str]) -> None:
    publisher, job = site.publisher(), site.claim()
    first, last = jobs.job_views(site.connection, job)
    jobs.record_outcomes(site.connection, job, [published(site, publisher, job, first)])
    published(site, publisher, job, last)
    jobs.record_outcomes(
        site.connection, job, [JobViewOutcome(sop_uid=last.sop_uid, outcome="failed", reason=ANOTHER_REASON)]
    )
    publisher.reports.publish(job, jobs.job_views(site.connection, job))
    assert made == ["done done", "done failed"]
    assert ANOTHER_REASON.encode() in (site.context.data.job_results(job.key) / "cad_sr.dcm").read_bytes()


def test_a_draft_of_a_superseded_job_is_not_published(site: Appliance, made: list[str]) -> None:
    publisher, job = site.publisher(), site.claim()
    first, last = jobs.job_views(site.connection, job)
    settled = [published(site, publisher, job, first)]
    jobs.record_outcomes(site.connection, job, settled)
    settled.append(published(site, publisher, job, last))
    site.receive_exam(1, (View.L_MLO,))
    site.assemble()
    successor = site.claim()
    late = next(view for view in jobs.job_views(site.connection, successor) if view.view == "L-MLO")
    settled.append(JobViewOutcome(sop_uid=late.sop_uid, outcome="failed", reason=ANOTHER_REASON))
    jobs.record_outcomes(site.connection, successor, settled)
    publisher.reports.publish(successor, jobs.job_views(site.connection, successor))
    assert [sorted(each.split()) for each in made] == [["done", "done"], ["done", "done", "failed"]]


def test_what_breaks_a_draft_breaks_the_reports_and_not_the_view(
    site: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("made up")

    monkeypatch.setattr(result_objects, "cad_sr", broken)
    publisher, job = site.publisher(), site.claim()
    for view in jobs.job_views(site.connection, job):
        settled = published(site, publisher, job, view)
        assert settled.outcome == "done"
        jobs.record_outcomes(site.connection, job, [settled])
    with pytest.raises(RuntimeError, match="made up"):
        publisher.reports.publish(job, jobs.job_views(site.connection, job))


def test_the_secondary_capture_hatches_what_the_network_did_not_see(tmp_path: Path) -> None:
    """Of a breast of 3,044 rows under the window of 2,944, in 100 rows an eighth of the pixels is black."""
    config = configuration(tmp_path)
    results = config.results.model_copy(update={"sc": True})
    receive = config.receive.model_copy(update={"max_object_bytes": 64 << 20})
    with appliance(config.model_copy(update={"results": results, "receive": receive})) as site:
        site.receive(dicom_file(View.L_CC, exam(1), breast(View.L_CC, 3400, 2000)))
        site.assemble()
        site.work()
        (path,) = (site.context.data.root / "results/views").glob("*/sc.dcm")
    picture = dcmread(path).pixel_array[BANNER_HEIGHT:, :, 0]
    row = len(picture) / 3400
    strip = picture[round(178 * row) : round(3222 * row), 40:72]  # rows that are all breast, beside the patches' labels
    hatched = (strip == 0).sum(axis=1) == 4
    assert hatched.sum() == pytest.approx(100 * row, abs=4)
    assert not hatched[round(100 * row) : -round(100 * row)].any()
