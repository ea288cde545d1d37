"""What a folder has beside regular files: pipes, sockets, and links to the results."""

import os
import socket
from pathlib import Path

import pytest
from support.archives import dicom, locations, reason
from support.deep_folder import make_deep_folder

from glam_deploy.archive.sources import open_source
from glam_deploy.errors import UsageError


def test_pipes_and_sockets_named_as_images_are_entries_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom("a"))
    monkeypatch.chdir(tmp_path)  # the name of a socket is at most 108 bytes long
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        os.mkfifo("b.dcm")
        one.bind("c.png")
        os.mkfifo("d.zip")
        other.bind("agent.sock")  # not named as an image
        source = open_source([str(tmp_path)])
        assert [Path(location).name for location in locations(source)] == ["a.dcm", "b.dcm", "c.png", "d.zip"]
        for entry in list(source.entries())[1:]:
            assert "it is a pipe, socket or device, expected a regular file" in reason(source, entry)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_one_in_a_list_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one:
        os.mkfifo("a.dcm") if kind == "pipe" else one.bind("a.dcm")
        Path("list.txt").write_text("a.dcm\n")
        source = open_source(["list.txt"])
        (entry,) = source.entries()
        assert "expected a regular file" in reason(source, entry)


@pytest.mark.parametrize("target", ["elsewhere", "elsewhere/out", "elsewhere/out/objects"])
def test_a_link_that_leads_to_the_results_is_refused(tmp_path: Path, target: str) -> None:
    for folder in ("in/b", "elsewhere/out/objects"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "in/a.dcm").write_bytes(dicom("a"))
    (tmp_path / "in/b/link").symlink_to(tmp_path / target)
    (tmp_path / "out").symlink_to("elsewhere/out")
    source = open_source([str(tmp_path / "in")], results=tmp_path / "out")
    with pytest.raises(UsageError, match=r"out is inside the source .* through the link .*link: choose a folder"):
        list(source.entries())
    (tmp_path / "in/b/link").unlink()
    (tmp_path / "in/b/link").symlink_to("..")
    assert len(list(source.entries())) == 1


@pytest.mark.parametrize("form", ["{}", "file://{}"])
@pytest.mark.parametrize("out", ["in", "in/out", "link/out"])
def test_results_in_the_source_are_refused(tmp_path: Path, form: str, out: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(UsageError, match=r"is inside the source .*in: choose a folder outside of it"):
        open_source([form.format(tmp_path / "in")], results=tmp_path / out)


def test_options_of_dicomweb_need_a_server_and_a_modality_of_dicom(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--modality is for DICOMweb servers.*--where Modality="):
        open_source([str(tmp_path)], modalities=["CR"])
    with pytest.raises(UsageError, match="--authority is for DICOMweb servers"):
        open_source([str(tmp_path)], authority=tmp_path / "ca.pem")
    with pytest.raises(UsageError, match=r"--modality XX is no modality of DICOM.*one of CR, CT, .*MG"):
        open_source(["dicomweb+https://host/dicom-web"], modalities=["MG", "XX"])


def test_a_tree_that_is_deeper_than_paths_may_be_is_an_entry(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom("1"))
    make_deep_folder(tmp_path)
    source = open_source([str(tmp_path)])
    whole, deep = source.entries()
    assert whole.name == "a.dcm"
    assert "(File name too long): shorten the names of its folders" in reason(source, deep)
