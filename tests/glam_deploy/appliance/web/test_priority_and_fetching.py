"""The page and metrics about priority, and about what is fetched from the archive."""

import re
from pathlib import Path

from support.web import Appliance, appliance, configuration, dicom_file, exam

from glam_deploy.appliance.config import Fetch
from glam_deploy.appliance.state import fetches
from glam_deploy.appliance.state.database import record_heartbeat
from glam_deploy.records import View


def text(page: str) -> str:
    """The words of a page, without elements."""
    return " ".join(re.sub("<[^>]*>", " ", page).split())


def test_what_is_fetched_and_why_not(tmp_path: Path) -> None:
    fetch = Fetch(ae_title="ARCHIVE", host="10.0.0.7", port=104)
    with appliance(configuration(tmp_path).model_copy(update={"fetch": fetch})) as made:
        fetches.add(made.connection, "study", ["1.2.3", "1.2.4"], str)
        page = text(made.visitor().get("/").text)
        assert "Fetching missing from ARCHIVE at 10.0.0.7 port 104 Wanted 2 Fetching 0 Fetched 0 Dead 0" in page
        record_heartbeat(made.connection, made.monotonic, "fetcher", "ready", {"archive": fetch.place})
        assert "ready from ARCHIVE at 10.0.0.7 port 104 Wanted 2" in text(made.visitor().get("/").text)
        record_heartbeat(
            made.connection, made.monotonic, "fetcher", "ready", {"reason": "outside of the times 22:00-06:00"}
        )
        assert "ready from ARCHIVE at 10.0.0.7 port 104: outside of the times" in text(made.visitor().get("/").text)
        assert 'glam_fetch_items{state="wanted"} 2.0' in made.visitor().get("/metrics").text


def test_the_fetcher_is_among_the_processes(tmp_path: Path) -> None:
    """Without it the appliance is ready: it receives and processes exams."""
    fetch = Fetch(ae_title="ARCHIVE", host="10.0.0.7", port=104)
    with appliance(configuration(tmp_path).model_copy(update={"fetch": fetch})) as made:
        made.beat()
        assert "fetcher missing" in text(made.visitor().get("/").text)
        assert made.client().get("/health/ready").json() == {"ready": True}
        record_heartbeat(made.connection, made.monotonic, "fetcher", "waiting", {"reason": "no connection"})
        assert "fetcher waiting" in text(made.visitor().get("/").text)
        assert made.client().get("/health/ready").json() == {"ready": True}
        assert 'glam_component_beat_age_seconds{component="fetcher"}' in made.visitor().get("/metrics").text


def test_nothing_about_fetching_without_its_table(empty: Appliance) -> None:
    page = text(empty.visitor().get("/").text)
    assert "Fetching" not in page
    assert "fetcher" not in page


def test_urgent_and_fetched_studies_are_marked(empty: Appliance) -> None:
    assert empty.receive(dicom_file(View.L_CC, exam(1))).status == 0
    for priority, shown in ((0, "STAT"), (1, ""), (2, "fetched")):
        empty.connection.execute("UPDATE study SET priority = ?", (priority,))
        page = text(empty.visitor().get("/studies").text)
        assert {word for word in ("STAT", "fetched") if word in page} == ({shown} if shown else set())
