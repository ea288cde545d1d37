"""SHA256SUMS of a release, and its signature: `python packaging/sums.py OUT [KEY]`.

KEY is an Ed25519 key as of `openssl genpkey -algorithm ed25519`. Others check with openssl and sha256sum alone:
docs/releases.md has the commands.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"


def main(out: Path, key: Path | None) -> None:
    """Write both files into the folder `out`; without a key, say that there is no signature."""
    (out / SIGNATURE).unlink(missing_ok=True)
    files = sorted(path for path in out.iterdir() if path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / SUMS).write_text("".join(lines), "ascii", newline="\n")
    if key is None:
        sys.stderr.write(f"{out / SUMS} is unsigned, because no key was given: make dist KEY=key.pem\n")
        return
    paths = ["-inkey", str(key), "-in", str(out / SUMS), "-out", str(out / SIGNATURE)]
    subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", *paths], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
