"""An appliance whose names, reasons and numbers are as long as they get, for the layout of its pages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import get_args

from pydicom import dcmread

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state import notifications
from glam_deploy.appliance.state.database import record_heartbeat
from glam_deploy.appliance.state.notify_events import Event
from glam_deploy.records import View
from support.browser import Seen
from support.providers import FalseProvider, oidc_table
from support.proxies import free_port
from support.web import ENGINE, Appliance, breast, configuration, dicom_file, exam, secondary_capture, set_notices

SENDER = "SCREENINGUNIT-07@198.51.100.203"
"""An AE title of 16 characters (PS3.5, VR AE)."""
TARGETS = ("archive-of-the-university-clinic", "screening-programme-region-north")
"""Of 32 characters, the most that the configuration takes."""
NAME = "Prof. Dr. Wolfeschlegelsteinhausenbergerdorff-Featherstonehaugh, Anna-Sophia"
"""Of a user; longer than what is shown of it."""
RECEIVER = "teleradiology-of-the-south-coast"
UIDS = tuple("2.25." + digit * 59 for digit in "123456789")
"""Study Instance UIDs of 64 characters (PS3.5 section 9)."""
PREFIX = "abcd"
"""First characters of every pseudonym, so that a search finds several studies."""
REASON = (
    "the pixel data of frame 1 cannot be decoded (JPEG Lossless, Non-Hierarchical, First-Order Prediction): the stream "
    f"ends after 5,242,880 of 26,738,688 bytes in the instance 1.2.840.113619.2.401.{'9' * 44}: send it again from the "
    "modality or from /srv/archive/screening/2026/11/incoming/LCC-0000000000000000000000000000000000000000000000001.dcm"
)
LONG_ENGINE = {
    **ENGINE,
    "bundle": "sha256:" + "0123456789abcdef" * 4,
    "gate": "2026-11-01T12:34:56Z passed on 1,234 images of 4 labelled sets, limit 0.0005, largest difference 0.000123",
    "device": "NVIDIA H200 NVL, GPU-01234567-89ab-cdef-0123-456789abcdef, driver 590.48.01",
    "patches": 6,
}


@dataclass(frozen=True)
class Long:
    """The appliance, and the pages of its studies by what has become of them."""

    appliance: Appliance
    studies: Mapping[str, str]

    def pages(self, seen: Seen) -> Iterator[str]:
        """Load one page of each kind after the other; gives its name."""
        seen.go("/login?next=/studies")
        yield "/login"
        seen.go("/login/start")
        version = f"{self.studies['failed']}/versions/1/accept"
        for path in (
            "/",
            "/studies",
            "/studies?stage=failed",
            "/failures",
            *self.studies.values(),
            version,
            "/nothing",
        ):
            seen.go(path)
            yield path
        for text in (PREFIX, "1.2.3"):
            seen.find(text)
            yield f"the search for {text}"
        with seen.page.expect_navigation():
            seen.page.get_by_role("button", name="Log out").click()
        yield "/logout"
        seen.go("/login/callback")
        yield "/login/callback"


def long_configuration(root: Path, provider: FalseProvider) -> Config:
    """Users log in at the provider, as an operator with a long name, or with the token."""
    provider.claims = {"groups": ["pacs-admin"], "preferred_username": NAME}
    port = free_port()
    config = configuration(root, port=port, public_url=f"http://127.0.0.1:{port}", oidc=oidc_table(provider.issuer))
    renamed = [one.model_copy(update={"name": name}) for one, name in zip(config.targets, TARGETS, strict=True)]
    results = config.results.model_copy(update={"triage_threshold": 0.001})
    return config.model_copy(update={"targets": tuple(renamed), "results": results})


def fill_long(made: Appliance) -> Long:
    """One of everything, at its longest."""
    made.beat()
    record_heartbeat(made.connection, made.monotonic, "worker", "ready", LONG_ENGINE)
    for target in TARGETS:
        record_heartbeat(made.connection, made.monotonic, f"target:{target}", "failing", {"reason": REASON})
    names = {
        "delivered": _delivered(made),
        "undelivered": _undelivered(made),
        "failed": _failed(made),
        "ignored": _ignored(made),
        "receiving": _received(made, 4, [View.R_MLO]),
    }
    _notify(made)
    _lengthen(made)
    rows = dict(made.connection.execute("SELECT study_uid, pseudonym FROM study").fetchall())
    return Long(made, {name: f"/study/{rows[uid]}" for name, uid in names.items()})


def _received(made: Appliance, number: int, views: list[View]) -> str:
    """Receive these views, one file each; the Study Instance UID."""
    for place, view in enumerate(views):
        made.receive(_file(number, view, place), SENDER)
    return UIDS[number]


def _file(number: int, view: View, place: int) -> bytes:
    dataset = dcmread(BytesIO(dicom_file(view, exam(number), breast(view, 600 + 8 * place))))
    dataset.StudyInstanceUID = UIDS[number]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.1{number}{place}".ljust(64, "5")
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _delivered(made: Appliance) -> str:
    """Five views, one of which failed; a result that was refused."""
    uid = _received(made, 0, [*View, View.L_CC])
    made.assemble()
    made.work(failed=REASON)
    codes = ("tissue-outside-window", "view-name-differs", "orientation-unknown", "name-of-other-kind", "uid-derived")
    for folder in (made.context.data.root / "results/views").iterdir():
        set_notices(folder, [{"code": code, "message": REASON} for code in codes])
    for target in TARGETS:
        made.deliver(target)
    return uid


def _undelivered(made: Appliance) -> str:
    uid = _received(made, 1, list(View))
    made.assemble()
    made.work()
    made.kill_delivery(TARGETS[0], REASON)
    return uid


def _failed(made: Appliance) -> str:
    """A refused instance and one in quarantine are of this study too."""
    uid = _received(made, 2, [View.L_CC, View.R_CC])
    made.assemble()
    made.kill_job(REASON)
    made.receive(_file(2, View.L_MLO, 0), SENDER)  # the UID of the first instance
    made.connection.execute(
        "UPDATE instance SET state = 'refused', reason = ? WHERE study_uid = ? AND view = 'R-CC'", (REASON, uid)
    )
    made.connection.execute("UPDATE quarantine SET reason = ?", (REASON,))
    return uid


def _ignored(made: Appliance) -> str:
    made.receive(secondary_capture(6), SENDER)
    made.assemble()
    return str(exam(6).uid("study"))


def _notify(made: Appliance) -> None:
    """A notification of every event, each dead for a long reason, and one that was confirmed."""
    notifications.queue(made.connection, {RECEIVER: get_args(Event)})
    made.connection.execute("UPDATE notification SET state = 'dead', attempts = 999, reason = ?", (REASON,))
    made.connection.execute("UPDATE notification SET state = 'delivered', delivered_at = created_at WHERE id = 1")


def _lengthen(made: Appliance) -> None:
    """Thousands of failures, waits of a day, pseudonyms that begin alike, and reasons wherever there can be one."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1234) "
    studies = (
        f"{numbers} INSERT INTO study SELECT study_uid || i, substr('0000000000000000' || i, -16), 'assembled',"
        " opened, touched, opened_at, touched_at, NULL, NULL, priority FROM study, n WHERE state = 'ignored'"
    )
    jobs = (
        "INSERT INTO job (study_uid, key, state, attempts, reason, created_at, finished_at)"
        f" SELECT study_uid, study_uid, 'dead', 999, '{REASON}', opened_at, touched_at FROM study"
        " WHERE pseudonym LIKE '000%'"
    )
    pseudonyms = (
        f"UPDATE study SET pseudonym = '{PREFIX}' || substr(pseudonym, {len(PREFIX) + 1})"
        " WHERE pseudonym NOT LIKE '000%'"
    )
    for statement in (
        studies,
        jobs,
        pseudonyms,
        "UPDATE job SET created_at = created_at - 90000",
    ):
        made.connection.execute(statement)
    made.connection.execute("UPDATE study SET reason = ? WHERE state = 'ignored'", (REASON,))
