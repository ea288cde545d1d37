"""Pseudonyms against HMAC-SHA-256 computed here by its definition (RFC 2104), and the rules of key files."""

import hashlib
import uuid
from pathlib import Path

import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.archive.identifiers import Identifiers, patient_of, read_key
from glam_deploy.errors import UsageError

KEY = bytes(range(32))
UIDS = {"SOPInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "StudyInstanceUID": "1.2.5"}


def mac(message: bytes) -> str:
    block = KEY.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()


def test_without_a_key_identifiers_are_as_stored_and_the_patient_is_not() -> None:
    assert Identifiers().of(UIDS, "/data/Jane.dcm", patient="0::4711") == {
        "location": "/data/Jane.dcm",
        "patient": "",
        "sop_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.4",
        "study_instance_uid": "1.2.5",
    }


def test_pseudonyms() -> None:
    found = Identifiers(key=KEY).of(UIDS, "/data/Jane.dcm", patient="0::4711")
    assert found["location"] == mac(b"glam-deploy location\0/data/Jane.dcm")[:32]
    assert found["patient"] == mac(b"glam-deploy patient\x000::4711")[:32]
    number = uuid.UUID(hex=mac(b"glam-deploy uid\x001.2.3")[:32]).int
    made = uuid.UUID(int=int(found["sop_instance_uid"].removeprefix("2.25.")))
    assert (made.variant, made.version) == (uuid.RFC_4122, 8)
    fixed = (0xF << 76) | (0x3 << 62)
    assert made.int & ~fixed == number & ~fixed
    assert all(UID(found[column]).is_valid for column in found if column.endswith("_uid"))
    assert not any(text in str(found) for text in ("1.2.3'", "Jane", "4711"))


def test_the_same_identifier_has_one_pseudonym_per_key() -> None:
    one, same, other = Identifiers(key=KEY), Identifiers(key=bytes(KEY)), Identifiers(key=KEY[::-1])
    assert one.uid("1.2.3") == same.uid("1.2.3 \0") != other.uid("1.2.3")
    assert one.text("location", "x") != one.text("content", "x")
    assert one.uid("") == "" and Identifiers(key=KEY).of({}, "x")["sop_instance_uid"] == ""
    assert str(KEY) not in repr(one) and KEY.hex() not in repr(one)


def test_a_data_set_of_another_key_is_refused() -> None:
    one = Identifiers(key=KEY)
    one.check_key(one.fingerprint)
    Identifiers().check_key("")
    for policy, recorded in (
        (one, ""),
        (Identifiers(), one.fingerprint),
        (one, Identifiers(key=KEY[::-1]).fingerprint),
    ):
        with pytest.raises(UsageError, match="--pseudonyms"):
            policy.check_key(recorded)


def test_patients_are_told_apart_by_their_issuer(tmp_path: Path) -> None:
    def patient(issuer: str, identifier: str) -> str:
        def edit(dataset: Dataset) -> None:
            dataset.PatientID, dataset.IssuerOfPatientID = identifier, issuer

        return patient_of(write_mg(tmp_path / "a.dcm", edit).read_bytes())

    assert len({patient("A", "1"), patient("B", "1"), patient("A", "2"), patient("", "A1"), patient("A:1", "")}) == 5
    assert patient("A", "") == ""


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(UsageError, match=r"does not exist.*openssl rand -hex 32"):
        read_key(path)
    path.write_text("000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F\n")
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        read_key(path)
    path.chmod(0o600)
    for content in ("", "secret password", "00" * 32, "0123456789abcdef" * 3, "0123456789abcdef" * 4 + "0"):
        path.write_text(content)
        with pytest.raises(UsageError, match="no key file") as caught:
            read_key(path)
        assert not content or content not in str(caught.value)
    path.write_text("000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F\n")
    assert read_key(path).key == KEY
    with pytest.raises(UsageError, match="cannot be read"):
        read_key(tmp_path)
