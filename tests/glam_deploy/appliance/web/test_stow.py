"""STOW-RS as PS3.18 section 10.5 has it, and what a hostile client may send."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.web import BASE, TOKEN, Appliance, appliance, configuration, dicom_file, exam

from glam_deploy.records import View

RELATED = 'multipart/related; type="application/dicom"; boundary=glam'
URL = "/dicom-web/studies"


def body(*parts: bytes, kind: str = "application/dicom", boundary: str = "glam") -> bytes:
    heads = f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(heads + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


def store(appliance: Appliance, content: Any, *, url: str = URL, kind: str = RELATED, **headers: str) -> httpx.Response:
    client = appliance.client(Authorization=f"Bearer {TOKEN}", Accept="application/dicom+json", **headers)
    return client.post(url, content=content, headers={"Content-Type": kind})


def uids(answer: httpx.Response, tag: str) -> list[str]:
    """Referenced SOP Instance UIDs of a sequence."""
    return [item["00081155"]["Value"][0] for item in answer.json().get(tag, {}).get("Value", [])]


def reasons(answer: httpx.Response, tag: str) -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.json().get(tag, {}).get("Value", [])]


def count(appliance: Appliance) -> int:
    return int(appliance.connection.execute("SELECT count(*) FROM instance").fetchone()[0])


def test_all_stored(empty: Appliance) -> None:
    files = [dicom_file(view, exam(1)) for view in View]
    answer = store(empty, body(*files))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    expected = [exam(1).uid("image", view.value, "FOR PRESENTATION") for view in View]
    assert uids(answer, "00081199") == expected
    assert "00081198" not in answer.json()
    rows = empty.connection.execute("SELECT state, view, sender FROM instance ORDER BY arrival").fetchall()
    assert [tuple(row) for row in rows] == [("candidate", view.value, "stow@127.0.0.1") for view in View]
    for item in answer.json()["00081199"]["Value"]:
        assert item["00081150"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.1.2"]}


def test_the_same_over_both_ways_is_one_instance(empty: Appliance) -> None:
    content = dicom_file(View.L_CC, exam(1))
    assert empty.receive(content).reason == ""
    assert store(empty, body(content)).status_code == 200
    assert count(empty) == 1


def test_in_chunks_of_any_length(empty: Appliance) -> None:
    """Boundaries fall into every possible place."""
    content = dicom_file(View.L_CC, exam(1))
    whole = body(content, content[:300])
    for step in (1009, 65536):

        async def chunks(step: int = step) -> AsyncIterator[bytes]:
            for start in range(0, len(whole), step):
                yield whole[start : start + step]

        assert store(empty, chunks()).status_code == 202
    path = next(empty.context.data.root.glob("spool/studies/*/*.dcm"))
    assert path.read_bytes()[-10_000:] == content[-10_000:]


def test_some_stored(empty: Appliance) -> None:
    good = dicom_file(View.L_CC, exam(1))
    cut = dicom_file(View.R_CC, exam(1))[:400]
    answer = store(empty, body(good, b"no DICOM at all", cut))
    assert answer.status_code == 202
    assert len(uids(answer, "00081199")) == 1
    assert 0xC000 in reasons(answer, "0008119A") + reasons(answer, "00081198")
    assert len(reasons(answer, "0008119A") + reasons(answer, "00081198")) == 2
    assert count(empty) == 1


def test_none_stored(empty: Appliance) -> None:
    answer = store(empty, body(b"no DICOM at all"))
    assert answer.status_code == 409
    assert list(answer.json()) == ["0008119A"]


def test_a_collision_of_uids(empty: Appliance) -> None:
    first = dicom_file(View.L_CC, exam(1))
    second = bytearray(first)
    second[-10] ^= 1
    assert store(empty, body(first)).status_code == 200
    answer = store(empty, body(bytes(second)))
    assert (answer.status_code, reasons(answer, "00081198")) == (409, [0xC111])


def test_a_view_that_was_cut(empty: Appliance) -> None:
    content = dicom_file(View.L_CC, exam(1))
    answer = store(empty, body(content[:-5000]))
    assert (answer.status_code, reasons(answer, "00081198")) == (409, [0xC113])
    assert store(empty, body(content)).status_code == 200


def test_a_study_in_the_address(empty: Appliance) -> None:
    content, study = dicom_file(View.L_CC, exam(1)), exam(1).uid("study")
    other = store(empty, body(content), url=f"{URL}/1.2.3")
    assert (other.status_code, reasons(other, "00081198")) == (409, [0xA900])
    assert count(empty) == 0
    assert store(empty, body(content), url=f"{URL}/{study}").status_code == 200
    assert store(empty, body(content), url=f"{URL}/..%2f..%2fx").status_code in (400, 404)
    assert store(empty, body(content), url=f"{URL}/1.02.3").status_code == 400


def test_a_full_disk(tmp_path: Path) -> None:
    config = configuration(tmp_path, stow=True)
    full = config.model_copy(update={"receive": config.receive.model_copy(update={"reserve_bytes": 1 << 60})})
    with appliance(full) as made:
        answer = store(made, body(dicom_file(View.L_CC, exam(1))))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "60"
        assert reasons(answer, "00081198") + reasons(answer, "0008119A") == [0xA700]
        assert not list(made.context.data.incoming.iterdir())


def test_a_part_without_end_is_not_read_to_its_end(empty: Appliance) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"--glam\r\nContent-Type: application/dicom\r\n\r\n" + dicom_file(View.L_CC, exam(1))
        for _ in range(1000):
            sent += 1 << 20
            yield bytes(1 << 20)

    assert store(empty, chunks()).status_code == 413
    assert sent < 3 * empty.context.config.receive.max_object_bytes
    assert not list(empty.context.data.incoming.iterdir())


def test_a_body_that_breaks_off_leaves_nothing(empty: Appliance) -> None:
    assert store(empty, body(dicom_file(View.L_CC, exam(1)))[:-5000]).status_code == 400
    assert count(empty) == 0
    assert not list(empty.context.data.incoming.iterdir())


def test_a_sender_that_falls_silent(tmp_path: Path) -> None:
    config = configuration(tmp_path, stow=True)
    hasty = config.model_copy(update={"receive": config.receive.model_copy(update={"idle_s": 0.1})})

    async def chunks() -> AsyncIterator[bytes]:
        yield b"--glam\r\n"
        await asyncio.Event().wait()

    with appliance(hasty) as made:
        assert store(made, chunks()).status_code == 408


@pytest.mark.parametrize(
    "kind",
    [
        "application/dicom",
        "multipart/form-data; boundary=glam",
        'multipart/related; type="application/dicom"',
        'multipart/related; type="application/dicom+json"; boundary=glam',
        "multipart/related; boundary=glam",
        f'multipart/related; type="application/dicom"; boundary={"x" * 71}',
        "",
    ],
)
def test_other_media_types(empty: Appliance, kind: str) -> None:
    assert store(empty, body(b"x"), kind=kind).status_code == 415


def test_other_parts(empty: Appliance) -> None:
    assert store(empty, body(b"{}", kind="application/json")).status_code == 415


@pytest.mark.parametrize("content", [b"", b"\r\n", b"--glam--\r\n", b"--other\r\n\r\n", b"x" * 1000,
                                     b"--glam\r\n" + b"A: b\r\n" * 10_000, b"--glam\r\n" + b"a" * 10_000])  # fmt: skip
def test_bodies_that_are_no_multipart(empty: Appliance, content: bytes) -> None:
    assert store(empty, content).status_code == 400
    assert '"code": "malformed"' in empty.audited()[-1]


def test_answers_that_we_do_not_give(empty: Appliance) -> None:
    client = empty.client(Authorization=f"Bearer {TOKEN}", Accept="application/dicom+xml")
    assert client.post(URL, content=body(b"x"), headers={"Content-Type": RELATED}).status_code == 406


def test_only_where_it_is_wanted(tmp_path: Path) -> None:
    with appliance(configuration(tmp_path)) as made:
        assert store(made, body(b"x")).status_code == 404


def test_never_by_a_browsers_session(empty: Appliance) -> None:
    client = empty.client(Origin=BASE)
    client.post("/login", data={"token": TOKEN})
    assert client.post(URL, content=body(b"x"), headers={"Content-Type": RELATED}).status_code == 403


def test_too_many_at_once(tmp_path: Path) -> None:
    """All places are taken by waiting senders; the next one gets status 503."""
    config = configuration(tmp_path, stow=True)
    few = config.model_copy(update={"receive": config.receive.model_copy(update={"max_associations": 2})})

    async def crowd(client: httpx.AsyncClient) -> tuple[int, list[int]]:
        gate = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"--glam\r\n"
            await gate.wait()
            yield b"Content-Type: application/dicom\r\n\r\nx\r\n--glam--\r\n"

        async with asyncio.timeout(30):
            waiting = [asyncio.create_task(client.post(URL, content=chunks())) for _ in range(2)]
            while made.context.uploads.available_tokens:
                await asyncio.sleep(0.01)
            late = await client.post(URL, content=body(b"x"))
            gate.set()
            return late.status_code, [answer.status_code for answer in await asyncio.gather(*waiting)]

    with appliance(few) as made:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": RELATED, "Accept": "*/*"}
        assert made.portal.call(crowd, made.client(**headers).raw) == (503, [409, 409])


def test_every_refusal_is_audited_without_the_study(empty: Appliance) -> None:
    store(empty, body(b"x"), url=f"{URL}/{exam(1).uid('study')}", kind="text/plain")
    line = json.loads(empty.audited()[-1])
    assert (line["event"], line["code"], line["what"]) == ("web_refused", "media_type", "dicom-web")
    assert exam(1).uid("study") not in json.dumps(line)
