"""docs/appliance.md in a fresh Debian 12: its lines, typed one after another, end with results in a PACS.

The system is made by debootstrap and left for good afterwards. What downloads runs in the network of this machine, all
else in one of its own, which has loopback only; so ports are those of the page. Debian's Orthanc, which its package
starts, is started beside it, because no service manager runs there.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pacs.exams import write_exam
from support.checkout import copy_sources
from support.commands import ROOT
from support.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.timeout(1500)
MANUAL = (ROOT / "docs/appliance.md").read_text("utf-8")
BLOCK = re.compile(r"^```\n(.+?)^```", re.DOTALL | re.MULTILINE)
HOME = "root/glam"
"""The checkout in the system."""
ENTER = """
mount --make-rprivate /
mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc"
exec chroot "$0" bash -c "cd /{home} && . /{home}/typed"
"""
LOOPBACK = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x41))"
"""Sets the interface up: SIOCSIFFLAGS with IFF_UP and IFF_RUNNING, netdevice(7)."""


def chapter(title: str) -> list[str]:
    """The blocks of commands below a heading."""
    _, _, text = MANUAL.partition(f"## {title}\n")
    return BLOCK.findall(text.partition("\n## ")[0])


@pytest.fixture(scope="module")
def debian(base: Path) -> Iterator[Path]:
    """A system with the checkout and `demo`, in which step 1 of the page has been typed."""
    root = base.with_name("root")
    subprocess.run(["cp", "-a", base, root], check=True)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # deb-systemd-invoke: start nothing
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    copy_sources(root / HOME)
    write_tiny_bundle(root / HOME / "demo/bundle")
    write_exam(root / HOME / "demo/exam", "debian")
    install, *_ = chapter("Quick start")
    typed(root, install, network=True)
    yield root
    shutil.rmtree(root)


def typed(root: Path, lines: str, *, network: bool = False) -> str:
    """Type lines in the system until one fails; what they printed. What they started ends with them."""
    (root / HOME / "typed").write_text(f"set -e -x\n{lines}")
    isolated = [] if network else ["--net"]
    begin = ENTER.format(home=HOME) if network else f'python3 -c "{LOOPBACK}"\n{ENTER.format(home=HOME)}'
    environment = {
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *isolated, "sh", "-e", "-c", begin, root]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    logs = "".join(path.read_text() for path in (root / HOME).glob("try*/*.log"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + logs[-3000:]
    return done.stdout


def test_the_quick_start_ends_with_results_in_the_pacs(debian: Path) -> None:
    """Beside Debian's Orthanc, which listens at 4242 and 8042."""
    _, *steps = chapter("Quick start")
    beside = "Orthanc /etc/orthanc > /dev/null 2>&1 &\nuntil curl -s http://127.0.0.1:8042/system; do sleep 1; done\n"
    out = typed(debian, beside + "\n".join(steps[:2]))
    statistics = json.loads(out[out.rindex("{") :])
    assert statistics["CountInstances"] == 4 + 4 + 4 + 2, out
    assert statistics["CountSeries"] > 2


def test_programs_of_dcmtk_send_to_the_appliance(debian: Path) -> None:
    _, configure, _, send, *_ = chapter("Quick start")
    configure = configure.replace("try", "try-dcmtk")
    listed = "/opt/glam-deploy/bin/glam-deploy queue list --all --json --config try-dcmtk/glam.toml\n"
    out = typed(debian, f"{configure}\n{send}\n{listed}")
    (study,) = json.loads(out[out.rindex("[\n") :])
    assert study["stage"] in ("waiting", "working", "sending", "delivered", "done")


def test_the_service_starts_as_its_user(debian: Path) -> None:
    """The commands of the page but for systemctl; then what the unit does, by setpriv."""
    (block,) = [block for block in chapter("Operation") if "useradd" in block]
    lines = "".join(line for line in block.splitlines(keepends=True) if not line.startswith("systemctl"))
    shutil.copytree(debian / HOME / "demo/bundle", debian / "srv/glam/bundle")
    start = """
unit=/etc/systemd/system/glam-deploy.service
of() { sed -n "s/^$1=-\\?//p" $unit; }
rm -r /root/glam/typed && cd /
as="setpriv --reuid $(of User) --regid $(of Group) --clear-groups --no-new-privs --bounding-set=-all"
$as $(of ExecStartPre)
$as $(of ExecStart) &
until $as /opt/glam-deploy/bin/glam-deploy doctor --ready --config /etc/glam-deploy/glam.toml; do sleep 1; done
stat -c %U%a /var/lib/glam-deploy /etc/glam-deploy/web.token
"""
    assert typed(debian, lines + start).split()[-2:] == ["glam-deploy700", "glam-deploy600"]
