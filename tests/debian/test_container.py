"""packaging/Containerfile, built by buildah on a fresh Debian, and run as the compose file of `init` says.

What it cannot show: the base image of a registry, and podman's own network and limits.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pacs.exams import write_exam
from support.commands import ROOT
from support.compose import services
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.cli.main import exit_code

pytestmark = pytest.mark.timeout(1500)
IMAGES = {"appliance": "localhost/glam-deploy", "orthanc": "localhost/glam-deploy-orthanc"}
LOOPBACK = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x41))"


class Buildah:
    """With a storage of its own."""

    def __init__(self, storage: Path) -> None:
        self.words = ["buildah", "--root", f"{storage}/root", "--runroot", f"{storage}/run", "--storage-driver", "vfs"]

    def __call__(self, *words: object) -> str:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        command = [*self.words, *map(str, words)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def buildah(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Which has both images."""
    buildah = Buildah(tmp_path_factory.mktemp("storage"))
    empty = buildah("from", "scratch")
    buildah("add", "--quiet", empty, base, "/")
    buildah("commit", "--quiet", "--rm", empty, "localhost/base")
    for target, image in IMAGES.items():
        buildah("bud", "--network", "host", "--build-arg", "BASE=localhost/base", "--target", target, "-t", image,
                "--format", "docker", "-f", "packaging/Containerfile", ".")  # fmt: skip
    yield buildah
    buildah("rmi", "--all", "--force")


def test_nothing_but_the_sources_goes_into_the_build(buildah: Buildah) -> None:
    described = json.loads(buildah("inspect", "--type", "image", IMAGES["appliance"]))
    config = described["Docker"]["config"]
    assert config["User"] == "10001"
    assert config["Healthcheck"]["Test"][-4:-1] == ["doctor", "--ready", "--config"]
    (ROOT / "web.token.of-a-test").write_text("secret")
    try:
        container = buildah("from", "localhost/base")
        buildah("copy", "--contextdir", ROOT, "--ignorefile", ROOT / ".dockerignore", container, ROOT, "/context")
        listed = buildah("run", container, "--", "ls", "-A", "/context").split()
    finally:
        (ROOT / "web.token.of-a-test").unlink()
    assert sorted(listed) == sorted(
        ["LICENSE", "README.md", "benchmarks", "constraints.txt", "docs", "examples", "export", "glam_deploy",
         "packaging", "pyproject.toml", "setup.py"]
    )  # fmt: skip


def test_the_two_services_process_an_exam(buildah: Buildah, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    folder = tmp_path / "made"
    init = ["init", folder, "--acknowledge-license", "--user", "nobody", "--bundle", tmp_path / "bundle", "--data",
            folder / "data", "--port", 21112, "--web-port", 21113, "--pacs", "PACS@127.0.0.1:24242"]  # fmt: skip
    assert exit_code(list(map(str, init))) == 0
    config = (folder / "glam.toml").read_text().replace("[receive]\n", "[receive]\nreserve_bytes = 0\n")
    (folder / "glam.toml").write_text(config)
    described = services((folder / "compose.yaml").read_text())
    appliance, orthanc = (described[name] for name in ("glam-deploy", "orthanc"))
    write_exam(tmp_path / "exam", "container")
    script = f"""
python3 -c "{LOOPBACK}"
{run(buildah, orthanc, ["/usr/sbin/Orthanc", *orthanc["command"]])} &
{run(buildah, appliance, ["/opt/glam-deploy/bin/glam-deploy", *appliance["command"]])} &
until {run(buildah, appliance, appliance["healthcheck"]["test"][1:])}; do sleep 1; done
until curl -sf http://127.0.0.1:8043/system; do sleep 1; done
for file in {tmp_path}/exam/*.dcm; do curl -sf -H Expect: --data-binary @$file http://127.0.0.1:8043/instances; done
study=$(curl -s http://127.0.0.1:8043/studies | tr -d '[]" \\n')
curl -s http://127.0.0.1:8043/modalities/glam/store -d $study
until curl -s http://127.0.0.1:8043/studies/$study/statistics | grep '"CountInstances" : 14'; do sleep 1; done
"""
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--net",
        "--mount-proc",
        "bash",
        "-e",
        "-c",
        script,
    ]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (folder / "data/state.db").stat().st_uid == (folder / "web.token").stat().st_uid != 0


def run(buildah: Buildah, service: dict[str, Any], command: list[str]) -> str:
    """The line that runs a command in a new container of a service: its image, user and volumes."""
    container = buildah("from", service["image"])
    volumes = [word for volume in service["volumes"] for word in ("-v", volume)]
    return shlex.join([*buildah.words, "run", "--user", service["user"], *volumes, container, "--", *command])
