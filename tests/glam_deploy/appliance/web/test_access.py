"""Which requests are accepted, which are refused, and that every refusal is audited."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.web import TOKEN, Appliance, configuration

from glam_deploy.appliance.config import Web
from glam_deploy.appliance.web.access import (
    WRONG_SECONDS,
    WRONG_TOKENS,
    Access,
    Refused,
    check_web,
    read_token,
)
from glam_deploy.appliance.web.login import page_after_login
from glam_deploy.appliance.web.sessions import Sessions, User
from glam_deploy.errors import UsageError

PRIVATE = (
    "/",
    "/studies",
    "/failures",
    "/study/0123456789abcdef",
    "/views/1/image.png",
    "/views/1/map.png",
    "/metrics",
)
POSTS = (
    *("/find", "/logout", "/jobs/1/retry", "/parcels/1/retry", "/notifications/1/retry"),
    *("/study/0123456789abcdef/versions/1/accept", "/dicom-web/studies", "/dicom-web/studies/1.2.3"),
)
OWN = {"Origin": "http://127.0.0.1:8042"}


def codes(appliance: Appliance) -> list[str]:
    lines = [json.loads(line) for line in appliance.audited()]
    return [line["code"] for line in lines if line["event"] == "web_refused"]


class Browser:
    """A client that has logged in by the form."""

    def __init__(self, appliance: Appliance) -> None:
        self.client = appliance.client(**OWN)
        self.answer = self.client.post("/login", data={"token": TOKEN})
        page = self.client.get("/").text
        self.form_token = page.partition('name="form_token" value="')[2].partition('"')[0]


@pytest.mark.parametrize("path", PRIVATE)
def test_without_a_token_nothing_is_shown(empty: Appliance, path: str) -> None:
    page, program = empty.client().get(path), empty.client(Accept="*/*").get(path)
    assert page.status_code == 303
    known = path in ("/studies", "/failures") or path.startswith("/study/")
    assert page.headers["location"] == (f"/login?next={path}" if known else "/login")
    assert program.status_code == 401
    assert program.headers["www-authenticate"] == "Bearer"
    assert codes(empty) == ["no_token", "no_token"]


@pytest.mark.parametrize("path", POSTS)
def test_without_a_token_nothing_is_changed(empty: Appliance, path: str) -> None:
    assert empty.client(**OWN).post(path).status_code == 401
    assert codes(empty) == ["no_token"]


@pytest.mark.parametrize("value", ["Bearer " + TOKEN[:-1], "Bearer ", "Basic " + TOKEN, TOKEN])
def test_a_wrong_token_is_refused(empty: Appliance, value: str) -> None:
    answer = empty.client(Authorization=value, Accept="*/*").get("/metrics")
    assert answer.status_code == 401
    assert TOKEN not in answer.text
    assert codes(empty) == ["wrong_token"]


def test_the_token_lets_programs_in(empty: Appliance) -> None:
    assert empty.visitor().get("/metrics").status_code == 200
    assert empty.client(Authorization=f"bearer  {TOKEN}").get("/metrics").status_code == 200


def test_logging_in_and_out(empty: Appliance) -> None:
    browser = Browser(empty)
    cookie = browser.answer.headers["set-cookie"]
    assert browser.answer.status_code == 303
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert browser.client.get("/").status_code == 200
    old = dict(browser.client.cookies)
    assert browser.client.post("/logout", data={"form_token": browser.form_token}).status_code == 303
    assert empty.client(Cookie="; ".join(f"{k}={v}" for k, v in old.items())).get("/").status_code == 303


def test_a_wrong_token_in_the_form(empty: Appliance) -> None:
    answer = empty.client(**OWN).post("/login", data={"token": "x" * 40})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert "Wrong token." in answer.text
    assert codes(empty) == ["wrong_token"]


def test_what_a_stranger_says_is_not_repeated(empty: Appliance) -> None:
    """Neither page, log nor audit holds what a request made up."""
    answer = empty.client(Accept="*/*").request("SECRET1", "/SECRET2/SECRET3?SECRET4", headers={"X": "SECRET5"})
    assert answer.status_code == 401
    assert "SECRET" not in answer.text + "".join(empty.audited())
    assert json.loads(empty.audited()[-1])["method"] == "other"


def test_wrong_tokens_have_to_wait_and_the_right_one_never(empty: Appliance) -> None:
    wrong = empty.client(Authorization="Bearer wrong")
    assert [wrong.get("/metrics").status_code for _ in range(WRONG_TOKENS)] == [401] * WRONG_TOKENS
    late = wrong.get("/metrics")
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= WRONG_SECONDS + 1
    assert empty.visitor().get("/metrics").status_code == 200
    assert empty.visitor().post("/dicom-web/studies").status_code == 406  # let in, but this client wants a page
    assert wrong.get("/metrics").status_code == 429


def test_wrong_tokens_in_the_form_do_not_block_the_right_one(empty: Appliance) -> None:
    wrong = empty.client(**OWN)
    answers = [wrong.post("/login", data={"token": "x" * 40}) for _ in range(WRONG_TOKENS + 1)]
    assert [answer.status_code for answer in answers] == [401] * WRONG_TOKENS + [429]
    assert "send the right one" in answers[-1].text
    assert Browser(empty).client.get("/").status_code == 200


def wrong_status(access: Access, address: str = "10.0.0.1") -> int:
    with pytest.raises(Refused) as refused:
        access.check_token("wrong", address)
    return refused.value.status


def test_time_ends_waits() -> None:
    now = 0.0
    access = Access(TOKEN, Sessions(absolute_s=1, idle_s=1), clock=lambda: now)
    for _ in range(WRONG_TOKENS):
        assert wrong_status(access) == 401
    assert wrong_status(access) == 429
    access.check_token(TOKEN, "10.0.0.1")
    assert wrong_status(access, "10.0.0.2") == 401
    now = WRONG_SECONDS
    assert wrong_status(access) == 401


def test_sessions_end_some_time_after_login_and_after_their_last_use() -> None:
    now = 0.0
    sessions = Sessions(absolute_s=100, idle_s=30, clock=lambda: now)
    user = User(name="anna", role="viewer")
    used, idle = sessions.open(user), sessions.open(user)
    for _ in range(3):
        now += 29
        assert (found := sessions.use(used)) and found.user == user
    assert sessions.use(idle) is None
    now = 100.0
    assert sessions.use(used) is None
    now = 0.0
    assert sessions.use(used) is None, "not even where the clock is set back"


def test_what_a_login_may_lead_to() -> None:
    """Pages of the appliance and nothing else: neither an address elsewhere nor what changes something."""
    pages = ("/", "/studies", "/failures", "/study/0123456789abcdef", "/study/0123456789abcdef/versions/1/accept")
    assert [page_after_login(page) for page in pages] == [*pages]
    elsewhere = (
        *("https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "\\\\evil.example", "evil"),
        *("javascript:alert(1)", "/studies/../..//evil.example", "/studies\n", "/logout", "/study/1.2.840.1", ""),
    )
    assert {page_after_login(page) for page in elsewhere} == {"/"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_forms_of_other_origins_are_refused(empty: Appliance, headers: dict[str, str]) -> None:
    browser = Browser(empty)
    answer = browser.client.post("/find", data={"q": "abcd", "form_token": browser.form_token}, headers=headers | (
        {} if "Origin" in headers else {"Origin": ""}))  # fmt: skip
    assert answer.status_code == 403
    assert codes(empty)[-1] == "foreign_origin"


@pytest.mark.parametrize("form_token", ["", "x", None])
def test_forms_without_the_pages_token_are_refused(empty: Appliance, form_token: str | None) -> None:
    browser = Browser(empty)
    data = {"q": "abcd"} | ({} if form_token is None else {"form_token": form_token})
    assert browser.client.post("/find", data=data).status_code == 403
    assert codes(empty) == ["form_token"]


def test_a_form_token_is_of_one_session(empty: Appliance) -> None:
    mine, other = Browser(empty), Browser(empty)
    assert mine.client.post("/find", data={"q": "abcd", "form_token": other.form_token}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8042", "", "127.0.0.1.evil.example", "[::1", "10.0.0.1"]
)
def test_foreign_names_are_refused(empty: Appliance, host: str) -> None:
    answer = empty.visitor().get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert codes(empty) == ["foreign_host"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1", "[::1]:8042"])
def test_own_names(empty: Appliance, host: str) -> None:
    assert empty.visitor().get("/", headers={"Host": host}).status_code == 200


def test_a_form_that_never_ends_is_refused(empty: Appliance) -> None:
    answer = empty.client(**OWN).post("/login", data={"token": "x" * 5000})
    assert answer.status_code == 413


def _written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_token_file(tmp_path: Path) -> None:
    assert read_token(_written(tmp_path, f"  {TOKEN}\n")) == TOKEN
    assert read_token(_written(tmp_path, TOKEN, 0o640)) == TOKEN


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("x" * 31, 0o600, "31 characters"),
        (TOKEN, 0o644, "mode 0644"),
        (TOKEN, 0o620, "mode 0620"),
        ("x" * 20 + " " + "x" * 20, 0o600, "without spaces"),
        ("\u00e4" * 40, 0o600, "it is not ASCII text"),
    ],
)
def test_a_token_file_that_will_not_do(tmp_path: Path, text: str, mode: int, told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        read_token(_written(tmp_path, text, mode))
    assert text not in str(error.value)


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda web: web.model_copy(update={"token_file": None}), "neither token_file nor oidc nor tls with an author"),
        (lambda web: web.model_copy(update={"public_url": "http://pacs.example/glam"}), "in clear"),
        (lambda web: web.model_copy(update={"host": "0.0.0.0"}), "or use loopback"),
        (lambda web: web.model_copy(update={"host": "10.1.2.3"}), "or use loopback"),
        (lambda web: web.model_copy(update={"host": "appliance.example"}), "or use loopback"),
    ],
)
def test_configuration_without_access_control_is_refused(
    tmp_path: Path, change: Callable[[Web], Web], told: str
) -> None:
    web = configuration(tmp_path).web
    check_web(web)
    with pytest.raises(UsageError, match=told):
        check_web(change(web))
