"""Locations of sources: what identifies a file, without credentials."""

import hashlib

import pytest

from glam_deploy.archive.sources.locations import without_credentials

UID = "1.2.840.10008.1.2.3.4.5.6.7.8.9.10.11.12"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://u:p@h:8/a.dcm", "https://h:8/a.dcm"),
        ("https://h/a.dcm?X-Amz-Signature=1&X-Amz-Date=2", "https://h/a.dcm"),
        ("https://h/a.dcm?sv=1&sr=b&se=2&sp=r&sig=abc", "https://h/a.dcm"),
        (f"https://h/w?objectUID={UID}&requestType=WADO&token=t", f"https://h/w?objectUID={UID}&requestType=WADO"),
        ("https://h/a?Expires=1&Signature=s%2F&Key-Pair-Id=K&n=1", "https://h/a?n=1"),
        ("https://h/a?series=1&sop=2&seq=3&sid=4&se=5&sr=6", "https://h/a?series=1&sop=2&seq=3&sid=4&se=5&sr=6"),
        ("https://h/a.zip?x", "https://h/a.zip?x"),
    ],
)
def test_locations_have_no_credentials(url: str, location: str) -> None:
    assert without_credentials(url) == location


LONG = "aB3" * 12
DISTINCT = [
    *(f"https://h/a.zip?{name}={value}" for name in ("id", "key", "sid") for value in ("0" * 64, "1" * 64, "a/b")),
    *(f"https://h/{name}.zip?id={LONG}" for name in "ab"), "https://h/a.zip", "https://h/a.zip#1", "https://h/a.zip#2",
    "https://h/a.zip?glam-redacted=0123456789abcdef", "https://[h/a", "https://[h/b",
    "https://h/a?x=a!b", "https://h/a?x=a%21b",
    "https://h/w?file=/archive/2019/03/12/P0001/L-CC.dcm", "https://h/w?file=/archive/2019/03/12/P0001/R-CC.dcm",
]  # fmt: skip


def test_locations_of_different_urls_differ() -> None:
    found = [without_credentials(url) for url in DISTINCT]
    assert len(set(found)) == len(DISTINCT)
    assert not any(LONG in text or "!" in text or "key=" in text for text in found)
    (marked,) = (text for url, text in zip(DISTINCT, found, strict=True) if url == f"https://h/a.zip?id={LONG}")
    # sha256sum of the URL
    assert (
        marked
        == f"https://h/a.zip?glam-redacted={hashlib.sha256(f'https://h/a.zip?id={LONG}'.encode()).hexdigest()[:16]}"
    )


def test_a_newly_signed_url_has_the_same_location() -> None:
    for names in (["X-Amz-Signature", "X-Amz-Date"], ["Signature", "GoogleAccessId", "Expires"], ["sig", "sv", "se"]):
        old, new = ("&".join(f"{name}={value * 40}" for name in names) for value in "ab")
        url = f"https://h/a.zip?id={LONG}&"
        assert without_credentials(url + old) == without_credentials(url + new)
    assert without_credentials("https://u:p@[h/a") == without_credentials("https://u:q@[h/a")
