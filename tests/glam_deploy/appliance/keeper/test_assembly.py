"""Assembly against a model of it: whatever the order of arrivals, looks, restarts, reboots and changes of the clock."""

import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.jobs import arrive, config_of, database_of, made

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import monotonic_clock
from glam_deploy.records import View

QUIET_S, CAP_S = 60.0, 100.0
STUDIES = ("1.2.1", "1.2.2")


class Model:
    """Model of the expected state of one study."""

    def __init__(self) -> None:
        self.mammograms: set[str] = set()
        self.views: set[View] = set()
        self.opened = self.touched = 0.0
        self.state = "none"
        self.jobs: list[frozenset[str]] = []
        """The mammograms of each job, in order."""

    def receive(self, sop_uid: str, view: View | None, is_mammogram: bool, now: float) -> None:
        if self.state == "none" or (is_mammogram and self.state != "receiving"):
            self.opened = now
        if self.state == "none" or is_mammogram:
            self.state, self.touched = "receiving", now
        if is_mammogram:
            self.mammograms.add(sop_uid)
        if view:
            self.views.add(view)

    def look(self, four_views: bool, now: float) -> None:
        complete = (four_views and len(self.views) == 4) or now - self.touched >= QUIET_S or now - self.opened >= CAP_S
        if self.state == "receiving" and complete:
            self.state = "assembled" if self.mammograms else "ignored"
            if self.mammograms and frozenset(self.mammograms) not in self.jobs:
                self.jobs.append(frozenset(self.mammograms))


class Assembly(RuleBasedStateMachine):
    """Steady time is the machine's own; the wall clock jumps as it likes."""

    @initialize(four_views=st.booleans())
    def start(self, four_views: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.rules = Assemble(quiet_s=QUIET_S, cap_s=CAP_S, four_views=four_views)
        self.data = made(config_of(Path(self.folder.name)))
        self.models = {uid: Model() for uid in STUDIES}
        self.count, self.boots, self.since_boot, self.before = 0, 1, 100.0, 0.0
        self.wall = 1.7e9
        self.real_time, time.time = time.time, lambda: self.wall
        self.open()

    def open(self) -> None:
        self.connection = database_of(self.data)
        self.monotonic = monotonic_clock(
            self.connection, boot_id=f"boot {self.boots}", since_boot=lambda: self.since_boot
        )

    @property
    def now(self) -> float:
        assert self.monotonic() >= self.before, "monotonic time went back"
        self.before = self.monotonic()
        return self.before

    @rule(
        study=st.sampled_from(STUDIES),
        view=st.sampled_from(View),
        kind=st.sampled_from(("candidate", "candidate", "refused", "skipped", "other")),
    )
    def receive(self, study: str, view: View, kind: str) -> None:
        self.count += 1
        uid, mammogram = f"1.2.3.{self.count}", kind != "other"
        state = "skipped" if kind == "other" else kind
        arrive(self.connection, uid, study=study, view=view, state=state, is_mammogram=mammogram, now=self.now)
        self.models[study].receive(uid, view if kind == "candidate" else None, mammogram, self.now)

    @rule(seconds=st.sampled_from((0.0, 40.0, 59.0, 61.0)))
    def look(self, seconds: float) -> None:
        """The keeper does, some time later."""
        self.since_boot += seconds
        studies.assemble_complete(self.connection, self.rules, self.now)
        for model in self.models.values():
            model.look(self.rules.four_views, self.now)

    @rule(what=st.sampled_from(("restart", "reboot", "clock back", "clock ahead")))
    def disturb(self, what: str) -> None:
        """After a reboot monotonic time continues from the last one written, so that deadlines can only come later."""
        if what.startswith("clock"):
            self.wall += -1e9 if what == "clock back" else 1e9
            return
        self.connection.close()
        if what == "reboot":
            self.boots, self.since_boot = self.boots + 1, 5.0
            self.before = max(model.touched for model in self.models.values())
        self.open()

    @rule()
    def finish(self) -> None:
        self.connection.execute("UPDATE job SET state = 'done' WHERE state = 'ready'")

    @invariant()
    def every_study_is_as_it_should_be(self) -> None:
        for uid, model in getattr(self, "models", {}).items():
            row = self.connection.execute("SELECT state FROM study WHERE study_uid = ?", (uid,)).fetchone()
            assert (row["state"] if row else "none") == model.state
            assert self._jobs(uid) == model.jobs

    @invariant()
    def at_most_the_newest_job_of_a_study_is_to_be_done(self) -> None:
        for uid in getattr(self, "models", {}):
            states = self.connection.execute("SELECT id, state, predecessor FROM job WHERE study_uid = ?", (uid,))
            found = states.fetchall()
            assert all(row["state"] in ("done", "superseded") for row in found[:-1])
            done = [None, *(row["id"] for row in found if row["state"] == "done")]
            assert all(row["predecessor"] in done for row in found)

    def _jobs(self, study: str) -> list[frozenset[str]]:
        found: dict[int, set[str]] = {}
        for row in self.connection.execute(
            "SELECT job.id, sop_uid FROM job JOIN job_view ON job_id = id WHERE study_uid = ? ORDER BY id", (study,)
        ):
            found.setdefault(row["id"], set()).add(row["sop_uid"])
        return [frozenset(uids) for uids in found.values()]

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            time.time = self.real_time
            self.connection.close()
            self.folder.cleanup()


Assembly.TestCase.settings = settings(max_examples=25, stateful_step_count=40, suppress_health_check=list(HealthCheck))
test_assembly = Assembly.TestCase
