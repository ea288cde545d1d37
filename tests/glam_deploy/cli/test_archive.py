"""What `archive` refuses before Ray is needed."""

from pathlib import Path

import pytest
from mammograms import write_mg
from support.commands import Cli


@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_objects_with_identifiers_and_pseudonyms_exclude_each_other(cli: Cli, tmp_path: Path, kind: str) -> None:
    write_mg(tmp_path / "a.dcm")
    said = cli("archive", tmp_path, "--pseudonyms", tmp_path / "key", "--write", "npz", "--write", kind)
    assert said.code == 2 and f"--write {kind} copies name and ID of the patient" in said.err
    assert "leave out one of them, or give images that were de-identified" in " ".join(said.err.split())


def test_readers_have_a_maximum(cli: Cli, tmp_path: Path) -> None:
    said = cli("archive", tmp_path, "--readers", "65")
    assert said.code == 2 and "65" in said.err and "1<=x<=64" in said.err
