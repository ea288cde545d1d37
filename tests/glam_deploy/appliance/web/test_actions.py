"""What operators may change on the pages and viewers not, and that the audit names who did it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from support.report import parse
from support.web import BASE, TOKEN, Appliance, Client, appliance, configuration, corrected_study

from glam_deploy import __version__
from glam_deploy.appliance.web.login import COOKIE
from glam_deploy.appliance.web.sessions import Role, User
from glam_deploy.records import View


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Appliance]:
    with appliance(configuration(tmp_path)) as made:
        yield made


def as_user(made: Appliance, name: str, role: Role) -> Client:
    secret = made.context.access.sessions.open(User(name=name, role=role))
    return made.client(Cookie=f"{COOKIE}={secret}", Origin=BASE)


def form_token(page: str) -> str:
    return page.partition('name="form_token" value="')[2].partition('"')[0]


def fields(page: str) -> dict[str, str]:
    """The hidden fields of a page."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))


def stored(made: Appliance) -> list[str]:
    rows = made.connection.execute("SELECT path FROM instance").fetchall()
    return [dcmread(made.context.data.root / path).PatientID for (path,) in rows]


def test_an_operator_accepts_a_correction(made: Appliance) -> None:
    study = corrected_study(made, 1)
    anna, page = as_user(made, "anna", "operator"), f"/study/{made.name(study)}"
    (link,) = re.findall(r'href="([^"]+/accept)"', anna.get(page).text)
    confirm = anna.get(link).text
    assert stored(made) == ["CANARY-ID"], "a link changes nothing"
    assert f"glam-deploy {__version__} " in confirm
    (form,) = [form for form in parse(confirm).all("form") if form.attributes["action"].endswith("/accept")]
    answer = anna.post(form.attributes["action"], data=fields(confirm))
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    assert stored(made) == ["MERGED"]
    (line,) = [json.loads(line) for line in made.audited() if '"correction_accepted"' in line]
    assert (line["by"], line["study"], line["sender"]) == ("anna", made.name(study), "127.0.0.1")
    assert "MERGED" not in "".join(made.audited())
    again = anna.post(form.attributes["action"], data=fields(confirm))
    assert again.status_code == 409, "the same form again: the number is that of the version before by now"
    assert stored(made) == ["MERGED"]


def test_the_token_accepts_too(made: Appliance) -> None:
    study = corrected_study(made, 1)
    program = made.client(Authorization=f"Bearer {TOKEN}")
    path = f"/study/{made.name(study)}/versions/1/accept"
    assert program.post(path, data=fields(program.get(path).text)).status_code == 303
    (line,) = [json.loads(line) for line in made.audited() if '"correction_accepted"' in line]
    assert line["by"] == "token"


def test_a_viewer_sees_a_correction_and_cannot_accept_it(made: Appliance) -> None:
    study = corrected_study(made, 1)
    vera, page = as_user(made, "vera", "viewer"), f"/study/{made.name(study)}"
    text = vera.get(page).text
    assert "equal pixels, but other PatientID" in text
    assert "An operator can accept one of them" in text
    assert not re.search(r"/accept|/retry", text)
    (digest,) = made.connection.execute("SELECT sha256 FROM quarantine").fetchone()
    data = {"form_token": form_token(text), "sha256": digest}
    assert vera.get(f"{page}/versions/1/accept").status_code == 403
    assert vera.post(f"{page}/versions/1/accept", data=data).status_code == 403
    assert stored(made) == ["CANARY-ID"]
    refused = [json.loads(line) for line in made.audited() if '"web_refused"' in line]
    assert {(line["code"], line["by"]) for line in refused} == {("not_operator", "vera")}


def test_a_viewer_cannot_retry(made: Appliance) -> None:
    made.receive_exam(1, (View.L_CC,))
    made.assemble()
    job = made.kill_job("dead")
    for name, role, status in (("vera", "viewer", 403), ("anna", "operator", 303)):
        user = as_user(made, name, role)
        page = user.get("/failures").text
        assert ("Retry job" in page) == (role == "operator")
        assert user.post(f"/jobs/{job.id}/retry", data={"form_token": form_token(page)}).status_code == status
    (line,) = [json.loads(line) for line in made.audited() if '"web_retry"' in line]
    assert line["by"] == "anna"


@pytest.mark.parametrize("token", ["", "x"])
def test_a_foreign_page_accepts_nothing(made: Appliance, token: str) -> None:
    """Neither without the form token of the session, nor with it from another origin."""
    path = f"/study/{made.name(corrected_study(made, 1))}/versions/1/accept"
    anna = as_user(made, "anna", "operator")
    own = fields(anna.get(path).text)
    assert anna.post(path, data={**own, "form_token": token}).status_code == 403
    assert anna.post(path, data=own, headers={"Origin": "https://evil.example"}).status_code == 403
    assert stored(made) == ["CANARY-ID"]


def test_versions_are_those_of_their_study(made: Appliance) -> None:
    corrected_study(made, 1)
    other = made.receive_exam(2, (View.L_CC,))
    anna = as_user(made, "anna", "operator")
    for path in (f"/study/{made.name(other)}/versions/1/accept", "/study/0123456789abcdef/versions/1/accept"):
        assert anna.get(path).status_code == 404


def test_a_version_whose_file_is_gone_changes_nothing(made: Appliance) -> None:
    study = corrected_study(made, 1)
    (path,) = made.connection.execute("SELECT path FROM quarantine").fetchone()
    (made.context.data.root / path).unlink()
    anna = as_user(made, "anna", "operator")
    path = f"/study/{made.name(study)}/versions/1/accept"
    answer = anna.post(path, data=fields(anna.get(path).text))
    assert answer.status_code == 409
    assert "have it sent again" in answer.text
