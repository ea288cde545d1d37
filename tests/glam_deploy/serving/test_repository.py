"""`glam-deploy triton`: what it writes, what it keeps, and what it refuses."""

import errno
import hashlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast, get_args

import pytest
from support import tensorrt
from support.bundles import edit_manifest, snapshot
from support.engines import fake_identity
from support.gate import IDENTITY, Candidate, gate
from support.served import versions, write_repository
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.bundle import open_bundle, write_ensemble
from glam_deploy.cli.main import exit_code
from glam_deploy.errors import BundleError
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.serving import repository as repository_module
from glam_deploy.serving.config import CONFIG, Instances
from glam_deploy.serving.repository import Graphs, plan, write
from glam_deploy.serving.served import Served


def triton(folder: Path, *options: str) -> int:
    return exit_code(["triton", "--bundle", str(folder / "bundle"), "--out", str(folder / "models"), *options])


def served_version(repository: Path, model: str = "glam") -> str:
    (found,) = re.findall(r"versions: (\d+)", (repository / model / CONFIG).read_text())
    return str(found)


def test_has_the_bundle_and_the_graphs_byte_by_byte(tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    (version,) = versions(repository)
    assert snapshot(version / "bundle") == snapshot(tmp_path / "bundle")
    for stage in ("global", "local", "fusion"):
        (folder,) = versions(repository, f"glam_{stage}")
        graph = (tmp_path / f"bundle/graphs/{stage}.onnx").read_bytes()
        assert snapshot(folder) == {"model.onnx": graph}
        number = int(hashlib.sha256(graph).hexdigest()[:13], 16) + 1
        assert folder.name == served_version(repository, f"glam_{stage}") == str(number)
    assert version.name == served_version(repository)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "models"]


def test_same_bundle_and_engine_are_the_same_version_and_change_nothing(tmp_path: Path) -> None:
    before = snapshot(write_repository(tmp_path))
    assert snapshot(write_repository(tmp_path)) == before


@pytest.mark.parametrize("name", ["model.py", "bundle/graphs/global.onnx"])
def test_a_version_that_was_changed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (version,) = versions(write_repository(tmp_path))
    with (version / name).open("ab") as file:
        file.write(b"changed")
    assert triton(tmp_path) == BundleError.exit_code
    assert f"{version / name}: is missing or was changed. Delete {version}" in capsys.readouterr().err


def test_other_settings_or_bundle_are_another_version_beside_the_first(tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    first = {path: content for path, content in snapshot(repository).items() if not path.endswith(CONFIG)}
    numbers = {served_version(repository)}
    for options in (["--patches", "3"], ["--threads", "1"]):
        write_repository(tmp_path, *options)
        numbers.add(served_version(repository))
    edit_manifest(tmp_path / "bundle", lambda manifest: manifest.update(licence="another"))
    write_repository(tmp_path)
    numbers.add(served_version(repository))
    assert len(numbers) == 4
    assert {one.name for one in versions(repository)} == numbers
    assert first.items() <= snapshot(repository).items()


def test_an_engine_needs_a_passed_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    Candidate(monkeypatch)
    assert triton(tmp_path, "--engine", "openvino") == 4
    assert not (tmp_path / "models").exists()
    assert triton(tmp_path, "--engine", "openvino", "--ungated") == 0
    record = (versions(tmp_path / "models")[0] / "served.json").read_text()
    assert '"ungated": true' in record
    edit_manifest(tmp_path / "bundle", lambda manifest: manifest.update(gates=[gate(IDENTITY)]))
    assert triton(tmp_path, "--engine", "openvino") == 0
    assert len(versions(tmp_path / "models")) == 2


def test_a_model_of_another_program_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "models/glam").mkdir(parents=True)
    (tmp_path / "models/glam" / CONFIG).write_text('name: "glam"')
    before = snapshot(tmp_path / "models")
    assert triton(tmp_path) == 2
    assert "another program" in capsys.readouterr().err
    assert snapshot(tmp_path / "models") == before


@pytest.mark.parametrize("place", ["bundle", "bundle/models", "."])
def test_a_repository_in_the_bundle_or_around_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    write_tiny_bundle(tmp_path / "room/bundle")
    (tmp_path / "link").symlink_to("room/bundle")
    before = snapshot(tmp_path / "room")
    for bundle in ("room/bundle", "link"):
        assert exit_code(["triton", "--bundle", str(tmp_path / bundle), "--out", str(tmp_path / "room" / place)]) == 2
        assert "are one folder, or one is in the other" in capsys.readouterr().err
    assert snapshot(tmp_path / "room") == before


@pytest.mark.parametrize("name", ["absent", "file", "with:colon"])
def test_packages_that_are_no_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "file").touch()
    (tmp_path / "with:colon").mkdir()
    assert triton(tmp_path, "--site-packages", str(tmp_path / name)) == 2
    assert f"--site-packages {tmp_path / name}: expected a folder" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_read_only_repository_is_told_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is renamed into it, which gives EXDEV where it is a mount point."""

    def read_only(**_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    write_tiny_bundle(tmp_path / "bundle")
    monkeypatch.setattr(repository_module.tempfile, "TemporaryFile", read_only)
    assert triton(tmp_path) == 2
    assert "(Read-only file system): mount the file system writable, or give another" in capsys.readouterr().err
    assert not list((tmp_path / "models").iterdir())


def test_a_mount_point_is_told_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """rename(2) gives EXDEV across mount points, also of one file system."""

    def rename(path: Path, target: Path) -> NoReturn:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    write_tiny_bundle(tmp_path / "bundle")
    monkeypatch.setattr(Path, "rename", rename)
    assert triton(tmp_path) == 2
    said = capsys.readouterr().err
    assert "(Invalid cross-device link): it is a mount point; give a folder inside it" in said
    assert "disk space" not in said


def test_a_changed_graph_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    before = snapshot(repository)
    graph = tmp_path / "bundle/graphs/fusion.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    edit_manifest(tmp_path / "bundle", lambda manifest: manifest.update(licence="another"))
    assert triton(tmp_path) == 4
    assert snapshot(repository) == before


def test_gpu_of_a_cpu_engine_and_tensorrt_without_its_engines_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    assert triton(tmp_path, "--graphs", "tensorrt") == 2
    assert "flavour tensorrt" in capsys.readouterr().err
    assert triton(tmp_path, "--device", "0,1") == 2
    assert triton(tmp_path, "--device", "0,0") == 2
    assert not (tmp_path / "models").exists()


def test_an_ensemble_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle").mkdir()
    for name in "12":
        write_tiny_bundle(tmp_path / "bundle" / name)
    edit_manifest(tmp_path / "bundle/2", lambda manifest: manifest["checkpoint"].update(sha256="11" * 32))
    write_ensemble(tmp_path / "bundle", [open_bundle(tmp_path / "bundle" / name) for name in "12"])
    assert triton(tmp_path) == 2
    assert "ensemble" in capsys.readouterr().err


def test_tensorrt_engines_are_the_models_of_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine files of a made-up TensorRT, which nothing opens here; their fusion engine has no fused map."""
    tensorrt.install(monkeypatch)
    tensorrt.fill(tmp_path / "bundle")
    assert exit_code(["build", "--bundle", str(tmp_path / "bundle"), "--engine", "fp16"]) == 0
    bundle = open_bundle(tmp_path / "bundle")
    (entry,) = bundle.engines
    identity = fake_identity("fp16", "fp16", flavour="tensorrt", key=entry.key)
    record = Served(bundle=bundle.id, engine="fp16", engine_digest="", library="", release="0", patches=1)
    for graphs in get_args(Graphs):  # the same version of the pipeline, and other files of the stages
        wanted = plan(
            bundle,
            cast(Pipeline, SimpleNamespace(identity=identity, patches=1)),
            record,
            largest_batch=8,
            instances=Instances(count=2, gpus=(0, 1)),
            graphs=graphs,
            site_packages=(),
        )
        write(tmp_path / "models", wanted)
    assert len(versions(tmp_path / "models")) == 1
    for stage, made in entry.stages.items():
        both = versions(tmp_path / "models", f"glam_{stage}")
        assert len(both) == 2
        (folder,) = (one for one in both if one.name == served_version(tmp_path / "models", f"glam_{stage}"))
        assert snapshot(folder) == {"model.plan": (bundle.folder / made.file).read_bytes()}
        text = (folder.parent / CONFIG).read_text()
        assert 'platform: "tensorrt_plan"' in text
        assert "instance_group { count: 2 kind: KIND_GPU gpus: [0, 1] }" in text
        assert '"saliency"' not in text
