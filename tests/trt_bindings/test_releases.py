"""Full TensorRT's bindings, release by release. Run by `make bindings-test`, which downloads 5 MB."""

import json
import shutil
from pathlib import Path

import pytest
from expected import need
from support.commands import start_process

from trt_bindings.asked import asked_in, names_of, sources, unlisted
from trt_bindings.offer import Offer
from trt_bindings.standins import beyond
from trt_bindings.wheels import RELEASES, build_stubs, download

pytestmark = pytest.mark.bindings


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cc", "" if shutil.which("cc") else "a C compiler")
    return build_stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="module", params=RELEASES)
def offer(request: pytest.FixtureRequest, stubs: Path, tmp_path_factory: pytest.TempPathFactory) -> Offer:
    """In a process of its own: one cannot import two releases."""
    unpacked = download(request.param, tmp_path_factory.mktemp(request.param), stubs)
    code = "import runpy; runpy.run_module('trt_bindings.offer', run_name='__main__')"
    process = start_process(code=code, env=unpacked.environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    found = Offer(**json.loads(out))
    assert found.version == request.param
    return found


def test_everything_that_is_asked_for_is_there(offer: Offer) -> None:
    assert offer.differences == []


def test_the_classes_that_are_derived_from_theirs(offer: Offer) -> None:
    assert offer.subclasses == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_the_contract_lists_what_the_code_asks_for(offer: Offer, path: Path) -> None:
    assert unlisted(asked_in(path.read_text("utf-8")), names_of(offer.classes.values())) == []


def test_the_made_up_library_offers_nothing_that_the_real_one_lacks(offer: Offer) -> None:
    assert beyond(offer, rtx=False) == []
