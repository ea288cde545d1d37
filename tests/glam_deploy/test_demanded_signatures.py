"""Everything that opens a bundle demands the signature and the digest that it was told to demand."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from support.bundles import edit_manifest, snapshot
from support.commands import ROOT, install_line, start_process
from support.engines import small_view
from support.keys import KeyPair, key_pair
from support.served import versions
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.appliance.config import Config, parse_config
from glam_deploy.appliance.work.predictor import load_predictor
from glam_deploy.archive.actors import EnginePlan, Predictor, PredictorFacts, Refusal, open_pipeline
from glam_deploy.archive.shipping import files_of, shipped
from glam_deploy.bundle import SIGNATURE, Trust, open_bundle, read_trust
from glam_deploy.cli.main import exit_code
from glam_deploy.errors import BundleError, UsageError


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def signed(tmp_path: Path, pair: KeyPair) -> Path:
    folder = write_tiny_bundle(tmp_path / "bundle")
    assert exit_code(["sign", "--bundle", str(folder), "--key", str(pair.private)]) == 0
    return folder


def altered(folder: Path) -> None:
    """By someone without the key; every hash is right."""
    edit_manifest(folder, lambda manifest: manifest.update(licence="another"))


COMMANDS = {"run": ["in", "--out", "out"], "run-dir": ["in", "out"], "triton": ["--out", "out"], "verify": []}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(
    signed: Path, tmp_path: Path, pair: KeyPair, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(small_view().pixels).save(tmp_path / "in/1_L-CC.png")
    words = [str(tmp_path / word) if word in ("in", "out") else word for word in COMMANDS[command]]
    altered(signed)
    demands = ["--trusted-key", str(pair.public)]
    assert exit_code([command, *words, "--bundle", str(signed), *demands]) == 4
    assert "the signature does not fit manifest.json" in capsys.readouterr().err
    assert exit_code([command, *words, "--bundle", str(signed), "--digest", "0" * 64]) == 4
    assert f"expected {'0' * 64}: it is another bundle" in capsys.readouterr().err


def test_a_model_repository_has_the_signature(signed: Path, tmp_path: Path, pair: KeyPair) -> None:
    words = ["triton", "--bundle", signed, "--out", tmp_path / "models", "--trusted-key", pair.public]
    assert exit_code([str(word) for word in words]) == 0
    (version,) = versions(tmp_path / "models")
    assert snapshot(version / "bundle") == snapshot(signed)
    open_bundle(version / "bundle", read_trust([pair.public], open_bundle(signed).id)).check()


def test_export_signs(tmp_path: Path, pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export itself is replaced; the signature is that of the command."""
    monkeypatch.setattr(
        "glam_deploy.cli.export.make_bundles", lambda weights, out, **options: (open_bundle(write_tiny_bundle(out)),)
    )
    words = ["export", "--weights", "w.pt", "--out", tmp_path / "new", "--sign-key", pair.private]
    assert exit_code([str(word) for word in words]) == 0
    open_bundle(tmp_path / "new", read_trust([pair.public])).check()


def test_export_reads_the_key_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--weights", "w.pt", "--out", tmp_path / "new", "--sign-key", tmp_path / "gone.pem"]
    assert exit_code([str(word) for word in words]) == 2
    assert "gone.pem: the key cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# the appliance


def config(folder: Path, table: str) -> Config:
    head = 'license_acknowledged = true\ndata = "data"\nworker = { bundle = "bundle", engine = "onnx" }\n'
    return parse_config(head + table, folder=folder)


def test_the_appliance(signed: Path, tmp_path: Path, pair: KeyPair) -> None:
    shutil.copy(pair.public, tmp_path / "public.pem")
    id = open_bundle(signed).id
    demanding = config(tmp_path, f'[bundle]\ntrusted_keys = ["public.pem"]\ndigest = "{id}"\n')
    assert demanding.bundle.trusted_keys == (tmp_path / "public.pem",)
    assert load_predictor(demanding).provenance["bundle"]["id"] == id
    altered(signed)
    with pytest.raises(BundleError, match="the signature does not fit"):
        load_predictor(demanding)
    with pytest.raises(BundleError, match=f"expected {id}"):
        load_predictor(config(tmp_path, f'[bundle]\ndigest = "{id}"\n'))
    load_predictor(config(tmp_path, ""))


def test_a_digest_of_another_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"bundle\.digest: expected 64 of 0-9 and a-f"):
        config(tmp_path, '[bundle]\ndigest = "00"\n')


def test_check_config_names_a_missing_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'license_acknowledged = true\ndata = "data"\nworker = { bundle = "bundle" }\n'
    text += 'web = { token_file = "token" }\n'
    (tmp_path / "glam.toml").write_text(f'{text}[bundle]\ntrusted_keys = ["public.pem"]\n')
    assert exit_code(["check-config", "--config", str(tmp_path / "glam.toml")]) == 1
    out = capsys.readouterr().out
    assert f"bundle     must be signed with {tmp_path / 'public.pem'}\n" in out
    assert f"MISSING    bundle.trusted_keys.0 = {tmp_path / 'public.pem'}\n" in out


def test_doctor(signed: Path, tmp_path: Path, pair: KeyPair) -> None:
    from glam_deploy.cli.doctor import _bundle

    shutil.copy(pair.public, tmp_path / "public.pem")
    demanding = config(tmp_path, '[bundle]\ntrusted_keys = ["public.pem"]\n')
    found = _bundle(demanding)
    assert (found.state, "signed with a trusted key" in found.found) == ("ok", True)
    (signed / SIGNATURE).unlink()
    found = _bundle(demanding)
    assert (found.state, "a signature of a trusted key is demanded" in found.found) == ("FAILS", True)


# nodes of `archive`


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/glam-deploy/bundles"


def opened(folder: Path, trust: Trust, *, change: str = "") -> PredictorFacts | Refusal:
    """What a node says; `change`: what an attacker there alters in the copy of the node."""
    bundle, files = shipped(folder, trust), files_of(folder)
    plan = EnginePlan(engine="onnx", trust=Trust(keys=trust.keys, digest=bundle.id))
    there = bundle.on_this_node(files)
    if change == "manifest":
        altered(there)
    if change == "signature":
        (there / SIGNATURE).unlink()
    return Predictor(bundle, plan, open_pipeline).open(files, None)


def test_a_node_opens_the_signed_bundle(signed: Path, cache: Path, pair: KeyPair) -> None:
    assert isinstance(opened(signed, read_trust([pair.public])), PredictorFacts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [("manifest", "it is another bundle, or an earlier or later state of it"), ("signature", "has no signature.json")],
)
def test_a_node_refuses_what_was_altered_there(
    signed: Path, cache: Path, pair: KeyPair, change: str, reason: str
) -> None:
    refused = opened(signed, read_trust([pair.public]), change=change)
    assert isinstance(refused, Refusal)
    assert (refused.exit_code, reason in refused.message) == (4, True)


def test_a_node_refuses_another_bundle_without_keys_too(signed: Path, cache: Path) -> None:
    refused = opened(signed, Trust(), change="manifest")
    assert isinstance(refused, Refusal)
    assert "it is another bundle" in refused.message


def test_the_run_does_not_start_with_an_altered_bundle(signed: Path, cache: Path, pair: KeyPair) -> None:
    altered(signed)
    with pytest.raises(BundleError, match="the signature does not fit"):
        shipped(signed, read_trust([pair.public]))


def test_a_signature_that_comes_later_reaches_the_nodes(tmp_path: Path, cache: Path, pair: KeyPair) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    opened(folder, Trust())
    assert exit_code(["sign", "--bundle", str(folder), "--key", str(pair.private)]) == 0
    assert isinstance(opened(folder, read_trust([pair.public])), PredictorFacts)


# the page, and the extra


def test_the_check_by_openssl_that_the_page_gives(signed: Path, tmp_path: Path, pair: KeyPair) -> None:
    page = (ROOT / "docs/security.md").read_text("utf-8")
    (block,) = [text for text in re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "pkeyutl" in text]
    shutil.copy(pair.public, tmp_path / "public.pem")
    done = subprocess.run(["sh", "-ec", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "Signature Verified Successfully" in done.stdout) == (0, True), done.stderr
    altered(signed)
    assert subprocess.run(["sh", "-ec", block], cwd=tmp_path, capture_output=True, check=False).returncode != 0


WITHOUT = """
import sys
from support import commands as support_commands
support_commands.block(["cryptography"])
from glam_deploy.cli.main import main
main()
"""


@pytest.mark.parametrize("words", [["verify", "--trusted-key"], ["sign", "--key"], ["triton", "--trusted-key"]])
def test_without_the_extra(signed: Path, pair: KeyPair, words: list[str]) -> None:
    process = start_process(*words, pair.public, "--bundle", signed, code=WITHOUT)
    _, err = process.communicate()
    assert process.returncode == 3
    assert f"a signature needs cryptography, which this Python lacks. Install with: {install_line('sign')}" in err


def test_without_the_extra_a_signed_bundle_works_where_no_key_is_demanded(signed: Path) -> None:
    process = start_process("inspect", "--bundle", signed, code=WITHOUT)
    out, err = process.communicate()
    assert (process.returncode, "by the key" in out) == (0, True), err
