"""A verdict's way into the manifest."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import edit_manifest, fill, snapshot, unprivileged
from support.gate import IDENTITY

from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import Verdict
from glam_deploy.bundle import Bundle, locked, open_bundle
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.gate.verdict import GateVerdict, record


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    fill(tmp_path)
    return open_bundle(tmp_path)


def made(when: str = "2026-01-01T00:00:00+00:00", *, identity: Any = IDENTITY, failures: Any = ()) -> Any:
    return GateVerdict(
        engine="openvino",
        identity=identity,
        reference="torch",
        patches=1,
        images_sha256="00",
        when=when,
        verdict=Verdict(metrics=None, failures=tuple(failures), limits=Limits()),
        metrics=None,
    ).entry()


def test_the_newest_takes_the_place_of_those_of_the_same_engine(bundle: Bundle) -> None:
    first, other, again = made(), made(identity=replace(IDENTITY, library="other")), made("2027", failures=["worse"])
    assert len({first.id, other.id, again.id}) == 3
    for entry in (first, other, again):
        bundle = record(bundle, entry)
    assert [entry.id for entry in bundle.gates] == [other.id, again.id]
    bundle.check()


def test_nothing_else_is_left_behind(bundle: Bundle) -> None:
    before = snapshot(bundle.folder)
    record(bundle, made())
    assert snapshot(bundle.folder).keys() == before.keys()
    assert not (bundle.folder / "engines").exists()


def test_it_waits_for_a_build(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a build has put into the manifest meanwhile stays there."""
    entry, waiting = made(), threading.Event()
    monkeypatch.setattr("glam_deploy.gate.verdict.locked", lambda folder: locked(folder, waiting.set))
    with locked(bundle.folder):
        thread = threading.Thread(target=record, args=(bundle, entry))
        thread.start()
        waiting.wait()
        edit_manifest(bundle.folder, lambda manifest: manifest.update(licence="of the build"))
    thread.join()
    now = open_bundle(bundle.folder)
    assert (now.manifest.licence, [found.id for found in now.gates]) == ("of the build", [entry.id])


def test_a_bundle_that_was_replaced_gets_no_verdict(bundle: Bundle) -> None:
    edit_manifest(bundle.folder, lambda manifest: manifest.update(created="2027-01-01T00:00:00+00:00"))
    with pytest.raises(BundleError, match="was replaced while the gate ran"):
        record(bundle, made())


def test_a_bundle_that_cannot_be_written_to(bundle: Bundle) -> None:
    with unprivileged(), pytest.raises(UsageError, match="the verdict cannot be written"):
        record(bundle, made())
