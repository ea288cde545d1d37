"""A study that was not analyzed, or only in part, does not look analyzed; a For Processing twin changes nothing."""

import pytest
from support.notify import Site, entry
from support.web import edited_view, raw_view

from glam_deploy.appliance.notify import hl7 as own
from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.study_detail import StudySummary, studies
from glam_deploy.appliance.state.without_result import FOR_PRESENTATION, FOR_PROCESSING
from glam_deploy.dicom import acceptance
from glam_deploy.records import View


def test_the_classes_are_those_of_the_acceptance_rules() -> None:
    assert (FOR_PRESENTATION, FOR_PROCESSING) == (acceptance.FOR_PRESENTATION, acceptance.FOR_PROCESSING)


def receive(site: Site, *files: bytes) -> None:
    for file in files:
        assert site.made.receive(file).reason == ""
    site.made.assemble()


def finish(site: Site) -> StudySummary:
    """The study, delivered."""
    site.made.work()
    site.deliver_all()
    (line,) = studies(site.made.connection)
    return line


def told(site: Site) -> list[str]:
    return [message.event for message in site.messages()]


@pytest.mark.parametrize(
    "file",
    [edited_view(View.L_CC, 1, BreastImplantPresent="YES"), raw_view(View.L_CC, 1)],
    ids=["implant", "For Processing alone"],
)
def test_a_study_whose_only_mammogram_was_skipped_is_no_plain_success(site: Site, file: bytes) -> None:
    receive(site, file)
    line = finish(site)
    assert (line.stage, line.lost) == ("delivered", 1)
    message = site.messages()[0]
    assert (message.event, message.reason) == ("refused_views", "1 of 1 mammograms have no result")
    ((view, outcome),) = [(each.view, each.outcome) for each in message.views]
    assert (view, outcome) == ("L-CC", "skipped")
    assert "No result of L-CC^" in own.oru(message, entry(kind="hl7", host="127.0.0.1", port=1))  # type: ignore[arg-type]


def test_the_page_says_so(site: Site) -> None:
    receive(site, edited_view(View.L_CC, 1, BreastImplantPresent="YES"))
    finish(site)
    page = site.made.visitor().get("/studies").text
    assert '<span class="chip part">Delivered, 1 image without result</span>' in page


def test_a_skipped_view_beside_a_processed_one_is_told(site: Site) -> None:
    site.made.receive_exam(1, (View.R_CC,))
    receive(site, edited_view(View.L_CC, 1, BreastImplantPresent="YES"))
    assert finish(site).lost == 1
    assert told(site) == ["refused_views", "delivered"]


def test_a_twin_is_not_told(site: Site) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    receive(site, raw_view(View.L_CC, 1))
    assert finish(site).lost == 0
    (message,) = site.messages()
    assert message.event == "delivered"
    assert [(each.view, each.outcome) for each in message.views] == [("L-CC", "done")]


def test_a_raw_image_of_another_view_is_no_twin(site: Site) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    receive(site, raw_view(View.L_MLO, 1))
    assert finish(site).lost == 1
    assert told(site) == ["refused_views", "delivered"]


def test_a_study_that_a_rule_discards_is_not_told(site: Site) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    job = site.made.claim()
    (view,) = jobs.job_views(site.made.connection, job)
    outcome = jobs.JobViewOutcome(sop_uid=view.sop_uid, outcome="skipped", reason="not processed, by a rule")
    assert jobs.record_outcomes(site.made.connection, job, [outcome])
    assert jobs.finish(site.made.connection, job, {})
    assert told(site) == []
