"""A bundle gives out what was written, byte for byte, or nothing."""

import hashlib
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.bundles import FILES, edit_manifest, facts, fill, unprivileged, write_manifest

from glam_deploy.bundle import MANIFEST, build_command, open_bundle
from glam_deploy.errors import BundleError, Caller, UsageError
from glam_deploy.networks import GLAM_CONCATENATION

Manifest = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound bundle."""
    place = tmp_path / "bundle"
    place.mkdir()
    fill(place)
    return place


# what is written, and read again


def test_manifest_names_every_file_with_its_hash_and_size(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    told = {name: (entry["sha256"], entry["bytes"]) for name, entry in manifest["files"].items()}
    assert told == {name: (hashlib.sha256(c).hexdigest(), len(c)) for name, c in FILES.items()}
    assert manifest["schema_version"] == 2
    assert {key: manifest[key] for key in facts()} == facts()


def test_sound_bundle(folder: Path) -> None:
    bundle = open_bundle(folder)
    bundle.check()
    assert {name: bundle.read(name) for name in bundle.files} == FILES
    assert bundle.id == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert (bundle.patches, bundle.network) == (1, GLAM_CONCATENATION)


def test_id_stands_for_every_byte(folder: Path) -> None:
    before = open_bundle(folder).id
    (folder / "graphs/local.onnx").write_bytes(b"other")
    write_manifest(folder, facts())
    assert open_bundle(folder).id != before


# damage


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte(folder: Path, name: str) -> None:
    content = bytearray(FILES[name])
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    bundle = open_bundle(folder)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        bundle.read(name)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        bundle.check()


@pytest.mark.parametrize("name", FILES)
def test_truncated_file(folder: Path, name: str) -> None:
    (folder / name).write_bytes(FILES[name][:-1])
    with pytest.raises(BundleError, match=rf"{name} has {len(FILES[name]) - 1} bytes, the manifest says"):
        open_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(folder: Path, name: str) -> None:
    bundle = open_bundle(folder)
    (folder / name).unlink()
    for use in (bundle.check, lambda: bundle.read(name), lambda: open_bundle(folder)):
        with pytest.raises(BundleError, match=f"{name} cannot be read"):
            use()


@pytest.mark.parametrize("stray", ["notes.txt", "graphs/.hidden", "graphs/other.onnx"])
def test_stray_file(folder: Path, stray: str) -> None:
    (folder / stray).write_bytes(b"")
    with pytest.raises(BundleError, match=f"{stray} is not in the manifest"):
        open_bundle(folder).check()


def test_stray_link_to_nothing(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(BundleError, match="link is not in the manifest"):
        open_bundle(folder).check()


def test_linked_content_counts_by_its_hash(folder: Path, tmp_path: Path) -> None:
    stored, name = tmp_path / "store", "graphs/local.onnx"
    (folder / name).replace(stored)
    (folder / name).symlink_to(stored)
    open_bundle(folder).check()
    stored.write_bytes(FILES[name][::-1])
    with pytest.raises(BundleError, match="was changed"):
        open_bundle(folder).read(name)


def test_file_that_the_manifest_does_not_name(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"does not list golden/case\.npz; it lists checkpoint\.safetensors, graphs/"):
        open_bundle(folder).read("golden/case.npz")


def test_unreadable_file() -> None:
    # pytest's own folders are closed to other accounts
    with TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        fill(folder)
        (folder / "graphs/local.onnx").chmod(0)
        denied = (
            r"local\.onnx cannot be read \(Permission denied\)\. Give this user the right to read it and its folder\.$"
        )
        with unprivileged(), pytest.raises(BundleError, match=denied):
            open_bundle(folder).read("graphs/local.onnx")


# manifests


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"schema_version"',
        b"\xff\xfe",
        b"{}",
        b'{"manifest_version": 3}',
    ],
)
def test_no_manifest_at_all(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match=r"not a bundle's manifest\. Export the checkpoint again"):
        open_bundle(folder)


def test_a_manifest_that_is_nested_too_deeply(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"[" * 100_000)
    with pytest.raises(BundleError, match=r"nested too deeply.*export the checkpoint again"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(3, "Upgrade glam-deploy"), (0, "Export the checkpoint again"), ("1", "Export"), (None, "Export")],
)
def test_other_schema_versions(folder: Path, version: object, remedy: str) -> None:
    edit_manifest(folder, lambda m: m.update(schema_version=version))
    with pytest.raises(BundleError, match=f"expected 1 or 2. {remedy}"):
        open_bundle(folder)


def test_newer_bundle_may_look_different_in_everything_else(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"schema_version": 3}')
    with pytest.raises(BundleError, match="Upgrade"):
        open_bundle(folder)


def lacking_files(manifest: Manifest) -> None:
    del manifest["files"]


def files_as_list(manifest: Manifest) -> None:
    manifest["files"] = ["a"]


def file_without_hash(manifest: Manifest) -> None:
    del manifest["files"]["graphs/local.onnx"]["sha256"]


def file_of_text_size(manifest: Manifest) -> None:
    manifest["files"]["graphs/local.onnx"]["bytes"] = "45"


def network_as_text(manifest: Manifest) -> None:
    manifest["network"] = "GLAM"


def patches_as_truth(manifest: Manifest) -> None:
    manifest["network"]["patches"] = True


def parity_row_as_text(manifest: Manifest) -> None:
    manifest["parity"].append("global.y_scale")


def parity_row_without_difference(manifest: Manifest) -> None:
    del manifest["parity"][0]["max_abs"]


def parity_row_without_limit(manifest: Manifest) -> None:
    manifest["parity"][0]["limit"] = None


def parity_limit_beyond_floats(manifest: Manifest) -> None:
    manifest["parity"][0]["limit"] = 10**400


def ignored_key_as_number(manifest: Manifest) -> None:
    manifest["checkpoint"]["ignored_keys"] = ["a", 7]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lacking_files, "files is missing, expected an object"),
        (files_as_list, "files is an array, expected an object"),
        (file_without_hash, r"files\.graphs/local\.onnx\.sha256 is missing, expected a string"),
        (file_of_text_size, r"files\.graphs/local\.onnx\.bytes is a string, expected a whole number"),
        (network_as_text, "network is a string, expected an object"),
        (patches_as_truth, r"network\.patches is true or false, expected a whole number"),
        (parity_row_as_text, r"parity\[1\] is a string, expected an object"),
        (parity_row_without_difference, r"parity\[0\]\.max_abs is missing, expected a float64 number or null"),
        (parity_row_without_limit, r"parity\[0\]\.limit is null, expected a float64 number"),
        (parity_limit_beyond_floats, r"parity\[0\]\.limit is a whole number, expected a float64 number"),
        (ignored_key_as_number, r"checkpoint\.ignored_keys\[1\] is a whole number, expected a string"),
    ],
)
def test_manifest_with_a_fault(folder: Path, edit: Callable[[Manifest], None], fault: str) -> None:
    edit_manifest(folder, edit)
    with pytest.raises(BundleError, match=fault):
        open_bundle(folder)


@pytest.mark.parametrize("key", facts().keys())
def test_every_fact_is_required(folder: Path, key: str) -> None:
    edit_manifest(folder, lambda m: m.pop(key))
    with pytest.raises(BundleError, match=f"{key} is missing"):
        open_bundle(folder)


def test_key_that_is_there_twice(folder: Path) -> None:
    """One program reads the first value, another one the last."""
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"patches": 1,', '"patches": 6, "patches": 1,', 1))
    with pytest.raises(BundleError, match="patches is there twice in one object"):
        open_bundle(folder)


def test_hash_changed_in_the_manifest(folder: Path) -> None:
    edit_manifest(folder, lambda m: m["files"]["graphs/local.onnx"].update(sha256="00" * 32))
    with pytest.raises(BundleError, match=r"graphs/local\.onnx was changed"):
        open_bundle(folder).check()


@pytest.mark.parametrize("name", ["../secret", "graphs/../../secret", "/etc/hostname", "..", "\0", "\ud800", "x" * 999])
def test_manifest_names_nothing_outside_the_bundle(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    edit_manifest(folder, lambda m: m["files"].update({name: entry}))
    with pytest.raises(BundleError):
        open_bundle(folder)


def test_no_bundle_there(tmp_path: Path, folder: Path) -> None:
    for place in (tmp_path / "nothing", tmp_path, folder / MANIFEST):
        with pytest.raises(UsageError, match=r"is not a bundle .*glam-deploy export .*: pass the path of") as caught:
            open_bundle(place)
        assert caught.value.message_for(Caller.RUN).endswith("with --bundle or GLAM_BUNDLE")
        assert "in the table [worker] of the configuration" in caught.value.message_for(Caller.APPLIANCE)


def test_unreadable_bundle(folder: Path) -> None:
    folder.chmod(0)
    with unprivileged(), pytest.raises(UsageError, match="Permission denied"):
        open_bundle(folder)
    folder.chmod(0o755)


# engines


def test_command_that_builds_again() -> None:
    said = build_command(Path("my bundle"), "fp16", "tensorrt-rtx", device=1, compute_capabilities=["8.9"])
    assert shlex.split(said) == [
        *("glam-deploy", "build", "--bundle", "my bundle", "--engine", "fp16"),
        *("--flavour", "tensorrt-rtx", "--device", "1", "--compute-capability", "8.9"),
    ]
    assert build_command(Path("b"), "fp32") == "glam-deploy build --bundle b --engine fp32"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_pipes_and_devices_are_refused_by_name(folder: Path, make: Callable[[Path], None], name: str) -> None:
    bundle = open_bundle(folder)
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises((BundleError, UsageError), match=rf"{name}.*it is a pipe, socket or device"):
        open_bundle(folder)
    if name != MANIFEST:
        for read in (bundle.read, bundle.check_file, bundle.check_size):
            with pytest.raises(BundleError, match=f"{name} cannot be read .it is a pipe, socket or device"):
                read(name)


def test_a_manifest_without_end_is_refused(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"manifest\.json cannot be read: it has more than 67108864 bytes"):
        open_bundle(folder)
