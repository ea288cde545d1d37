"""The worker gives a fetched exam back, with its finished views, when a live one waits; targets of fetched exams."""

from pathlib import Path

import pytest
from support import jobs as support_jobs
from support.jobs import config_of, made, rows, send, stub
from support.until import until
from support.working import BARE, ONE_TARGET, assemble, states, working

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state.priority import Priority
from glam_deploy.records import View
from glam_deploy.runtime.pipeline import Pipeline

FETCH = '[fetch]\nurl = "https://pacs/dicom-web"\ntargets = ["research"]'
RESEARCH = ONE_TARGET.replace("pacs", "research")


def fetched(config: Config, *views: View) -> None:
    """An exam that came by fetching."""
    send(config, *views, exam="old")
    data = made(config)
    with support_jobs.closing(support_jobs.database_of(data)) as connection:
        connection.execute("UPDATE study SET priority = ?", (Priority.FETCHED,))
    assemble(config)


def test_a_live_exam_does_not_wait_for_the_end_of_a_fetched_one(tmp_path: Path) -> None:
    config, begun = config_of(tmp_path, BARE), []

    def watched(config: Config) -> Pipeline:
        pipeline = stub(config)
        run = pipeline.submit

        def submit(image, **options):  # type: ignore[no-untyped-def]
            begun.append(1)
            if len(begun) == 1:
                send(config, View.L_CC, exam="live")
                assemble(config)
            return run(image, **options)

        pipeline.submit = submit  # type: ignore[method-assign]
        return pipeline

    fetched(config, *View)
    with working(config, watched) as data:
        until(lambda: states(data) == ["done", "done"])
    finished = rows(data, "SELECT study_uid FROM job ORDER BY finished_at")
    (old,), (live,) = rows(data, "SELECT study_uid FROM job ORDER BY id")
    assert finished == [(live,), (old,)]
    assert rows(data, "SELECT attempts FROM job") == [(0,), (0,)], "to give way is no failure"
    assert rows(data, "SELECT count(*) FROM event WHERE what = 'started' AND study_uid = ?", old) == [(2,)]
    assert rows(data, "SELECT count(*) FROM job_view WHERE outcome = 'done'") == [(5,)]
    assert len(begun) <= 6, "only a view that was under way may be computed again"


@pytest.mark.parametrize(("route", "expected"), [("", ["research"]), ("[[routes]]\ndiscard = true", [])])
def test_results_of_a_fetched_exam_go_to_the_targets_of_fetch(tmp_path: Path, route: str, expected: list[str]) -> None:
    """A rule that discards the study still does."""
    config = config_of(tmp_path, ONE_TARGET, RESEARCH, FETCH, route)
    fetched(config, View.L_CC)
    with working(config) as data:
        until(lambda: states(data) == ["done"])
    assert rows(data, "SELECT target FROM parcel") == [(name,) for name in expected]


def test_results_of_a_live_exam_do_not(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE_TARGET, RESEARCH, FETCH)
    send(config, View.L_CC)
    assemble(config)
    with working(config) as data:
        until(lambda: states(data) == ["done"])
    assert rows(data, "SELECT target FROM parcel ORDER BY target") == [("pacs",), ("research",)]
