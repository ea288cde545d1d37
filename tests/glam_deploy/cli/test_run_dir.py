"""`glam-deploy run-dir`, as a host calls it: which folders, what is written, and what a shell sees."""

from pathlib import Path

import pytest
from support_commands import Cli

from glam_deploy.cli.run_dir import in_and_out
from glam_deploy.errors import UsageError

MERCURE = {"MERCURE_IN_DIR": "/m/in", "MERCURE_OUT_DIR": "/m/out"}
MONAI = {"MONAI_INPUTPATH": "/var/in", "MONAI_OUTPUTPATH": "/var/out"}

# which folders


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (["a", "b"], {}, ("a", "b")),
        (["a", "b"], MERCURE, ("a", "b")),
        ([], MERCURE, ("/m/in", "/m/out")),
        ([], MONAI, ("/var/in", "/var/out")),
        ([], MERCURE | MONAI, ("/m/in", "/m/out")),
        ([], {"MERCURE_IN_DIR": "/m/in"} | MONAI, ("/var/in", "/var/out")),
        ([], {"MERCURE_IN_DIR": "/m/in", "MERCURE_OUT_DIR": ""} | MONAI, ("/var/in", "/var/out")),
    ],
)
def test_folders(given: list[str], environment: dict[str, str], expected: tuple[str, str]) -> None:
    assert in_and_out([Path(name) for name in given], environment) == tuple(map(Path, expected))


@pytest.mark.parametrize(
    "environment", [{}, {"MERCURE_IN_DIR": "/m/in"}, {"MERCURE_IN_DIR": "/a", "MONAI_OUTPUTPATH": "/b"}]
)
def test_no_folders(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"0 folders are given.*MERCURE_IN_DIR and MERCURE_OUT_DIR"):
        in_and_out([], environment)


def test_one_folder_is_not_completed_by_the_environment() -> None:
    with pytest.raises(UsageError, match="1 folders are given"):
        in_and_out([Path("a")], MERCURE)


def test_what_cannot_serve_as_a_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is no folder" in cli("run-dir", tmp_path / "none", tmp_path / "out").err
    assert "cannot be made" in cli("run-dir", tmp_path, tmp_path / "file" / "out").err
    said = cli("run-dir", tmp_path, tmp_path)
    assert (said.code, "holds 'file', expected an empty folder" in said.err) == (2, True)
