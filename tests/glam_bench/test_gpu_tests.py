"""The step that runs tests of the GPU: what it counts, and where there are none."""

from pathlib import Path

import pytest

from glam_bench.gpu.plan import GpuContext, GpuOptions
from glam_bench.measurements import gpu_tests
from glam_bench.record import Record
from glam_deploy.errors import BackendRunError, BackendUnavailable

MIXED = """
import pytest
def test_right(): pass
def test_wrong(): assert 1 == 2, "as hardware has it"
def test_fake_only(driver): pass
@pytest.mark.parametrize("n", [1, 2])
def test_several(n): pass
"""


@pytest.fixture
def context(tmp_path: Path, record: Record) -> GpuContext:
    return GpuContext(options=GpuOptions(bundle=tmp_path, work=tmp_path), record=record, name="gpu_tests")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a test in each room; the plugin is the real one's twin without a GPU."""
    monkeypatch.setattr(gpu_tests, "TREE", tmp_path / "tree")
    for room in gpu_tests.ROOMS:
        folder = tmp_path / "tree/tests/glam_deploy/gpu" / room
        folder.mkdir(parents=True)
        (folder / "gpu_one.py").write_text("def test_right(): pass\n")
    plugin = tmp_path / "tree/tests/fake_cuda"
    plugin.mkdir()
    (plugin / "__init__.py").touch()
    skipping = "import pytest\n@pytest.fixture\ndef driver(): pytest.skip('needs the fake driver')\n"
    (plugin / "plugin.py").write_text(skipping)
    return tmp_path / "tree"


@pytest.mark.slow
def test_all_right(tree: Path, context: GpuContext) -> None:
    gpu_tests.run(context)
    found = context.record.results("gpu_tests")
    assert found == {room: {"passed": 1, "skipped": 0, "failed": [], "failures": {}} for room in ("device", "chain")}


@pytest.mark.slow
def test_failures_are_named_and_kept(tree: Path, context: GpuContext) -> None:
    (tree / "tests/glam_deploy/gpu/device/gpu_two.py").write_text(MIXED)
    with pytest.raises(BackendRunError, match=r"1 tests fail on this GPU: .*gpu_two::test_wrong"):
        gpu_tests.run(context)
    found = context.record.results("gpu_tests")
    assert (found["device"]["passed"], found["device"]["skipped"], len(found["device"]["failed"])) == (4, 1, 1)
    assert "as hardware has it" in next(iter(found["device"]["failures"].values()))
    assert found["chain"]["passed"] == 1, "the other room is run all the same"


def test_a_file_that_cannot_be_imported_is_a_failure(tree: Path, context: GpuContext) -> None:
    (tree / "tests/glam_deploy/gpu/chain/gpu_two.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(BackendRunError, match="1 tests fail"):
        gpu_tests.run(context)


def test_an_installation_without_tests(tmp_path: Path, context: GpuContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_tests, "TREE", tmp_path)
    with pytest.raises(BackendUnavailable, match=r"has no gpu_\*\.py\. They come with a checkout"):
        gpu_tests.run(context)


def test_this_checkout_has_them() -> None:
    for room in gpu_tests.ROOMS:
        assert len(gpu_tests.files_of(room)) >= 3
