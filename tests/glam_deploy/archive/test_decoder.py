"""The decoder of a reading process: what it lacks, and what follows if it cannot be started; needs no Ray."""

from pathlib import Path

import pytest
from mammograms import write_mg
from support.commands import start_process

from glam_deploy.archive.decoder import open_decoder
from glam_deploy.decoding import view_reader
from glam_deploy.decoding.view_reader import NotStarted

ELSEWHERE = """
import sys
from pathlib import Path
from glam_deploy.archive.actors import Reader
from glam_deploy.archive.decoder import decode_here
from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.sources import open_source
source = open_source([sys.argv[1]])
(entry,) = source.entries()
EntryReader(source=source).read(entry, decode_here)  # imports what the real system needs
sys.platform = "darwin"
reader = Reader(EntryReader(source=source))
found, view = reader.read(entry)
assert view, found
print(repr(reader.ready()), view.mammogram.view, [name for name in sys.modules if "glam_deploy.decoding" in name])
"""


def test_on_another_system_nothing_of_the_child_process_is_imported(tmp_path: Path) -> None:
    process = start_process(write_mg(tmp_path / "a.dcm"), code=ELSEWHERE)
    out, err = process.communicate()
    assert out == "'' L-CC []\n", err


LATER = """
import sys
from pathlib import Path
from glam_deploy.archive.decoder import open_decoder
from glam_deploy.decoding import view_reader
decode, _ = open_decoder()
path = Path(sys.argv[1])
decode(path.read_bytes(), path, for_processing=False)
view_reader._PROGRAM = "raise SystemExit(3)"
reader = next(cell.cell_contents for cell in decode.__closure__ if hasattr(cell.cell_contents, "kill"))
reader.kill()
decode(path.read_bytes(), path, for_processing=False)
print("went on")
"""


def test_a_reader_without_a_decoder_ends_because_the_image_is_not_the_cause(tmp_path: Path) -> None:
    """Its entries are tried again, as those of other processes that ended."""
    process = start_process(write_mg(tmp_path / "a.dcm"), code=LATER)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, ""), err
    assert "Traceback" not in err


def test_a_reader_whose_decoder_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_reader, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(NotStarted, match="exit code 3 before it was ready"):
        open_decoder()
