"""Which graphs an export refuses, and with which message."""

from pathlib import Path

import numpy as np
import pytest
from support.export import CHAIN, WEIGHTS, Half, Wrong, assert_fails

from glam_deploy.agreement.metrics import Comparison
from glam_deploy.bundle import (
    WINOGRAD_FILE,
)
from glam_deploy.errors import BackendRunError, ParityError
from glam_export.exporter import ExportOptions, export_bundle
from glam_export.steps import compare

BOTH = ExportOptions(precisions=("fp16", "bf16"))


@pytest.mark.parametrize(
    ("missed", "options", "remedy"),
    [
        (["fp16"], ExportOptions(), "--precision fp32"),
        (["fp16"], BOTH, "--precision bf16"),
        (["bf16"], BOTH, "--precision fp16"),
        (["fp16", "bf16"], BOTH, "--precision fp32"),
    ],
)
def test_a_half_graph_that_is_wrong_is_named_and_how_to_do_without(
    place: Path, wrong: Wrong, missed: list[Half], options: ExportOptions, remedy: str
) -> None:
    for precision in missed:
        wrong("z_k", 0.5, precision)
    message = assert_fails(place, ParityError, options)
    for precision in missed:
        assert f"\n  local.z_k in {precision}: differs by 0.5 on average, limit 0." in message
    assert message.endswith(f"lose too much in {' and '.join(missed)}: export without it, with {remedy}.")


def test_int8_that_loses_too_much_has_a_search_as_its_remedy() -> None:
    name = "local.saliency_patches"
    floats = Comparison(name=name, max_abs=0.001, mean_abs=0.0001, limit=0.03)
    int8 = Comparison(name=name, precision="int8", max_abs=0.9, mean_abs=0.435, limit=0.03)
    with pytest.raises(ParityError, match=r"in int8: export without it, with --precision fp32, or --precision auto, "):
        compare.require_parity([floats, int8])


def test_winograd_form_is_made_of_the_local_graph_and_compared(tmp_path: Path, wrong: Wrong) -> None:
    bundle = export_bundle(WEIGHTS, tmp_path / "bundle", ExportOptions(precisions=(), winograd=True))
    assert bundle.read(WINOGRAD_FILE) == b"fast local fp32"
    rows = [row.output for row in bundle.manifest.parity]
    assert [name for name in rows if "winograd" in name] == ["winograd.local.saliency_patches", "winograd.local.z_k"]
    plain = export_bundle(WEIGHTS, tmp_path / "plain", ExportOptions(precisions=()))
    assert WINOGRAD_FILE not in plain.files
    assert [row.output for row in plain.manifest.parity] == [name for name in rows if "winograd" not in name]


def test_winograd_form_that_is_wrong_is_named_and_how_to_do_without(place: Path, wrong: Wrong) -> None:
    wrong("z_k", 1e-3, "winograd")
    message = assert_fails(place, ParityError, ExportOptions(winograd=True))
    assert "\n  winograd.local.z_k: differs by 0.001, limit 0.0001\n" in message
    assert message.endswith(
        " lose too much in Winograd's form: export without --winograd, and without --precision auto."
    )


def test_rounding_of_half_graphs_is_no_fault(tmp_path: Path, wrong: Wrong) -> None:
    wrong("z_k", 1e-3, "fp16")
    bundle = export_bundle(WEIGHTS, tmp_path / "bundle", ExportOptions())
    row = next(r for r in bundle.manifest.parity if (r.precision, r.output) == ("fp16", "local.z_k"))
    assert row.passed
    assert row.mean_abs == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("output", ["global.z_g", "local.z_k", "fusion.saliency"])
def test_a_wrong_graph_makes_no_bundle(place: Path, wrong: Wrong, output: str) -> None:
    wrong(output.split(".")[1], 1e-3)
    message = assert_fails(place, ParityError)
    # the chain compares none of the three, so that one row stands alone
    assert message.startswith("1 of 19 outputs disagree with the PyTorch reference; no bundle was written:\n")
    assert f"\n  {output}: differs by 0.001, limit 0.0001\n" in message


def test_a_wrong_graph_is_wrong_in_the_chain_too(place: Path, wrong: Wrong) -> None:
    wrong("y_local", 1e-3)
    message = assert_fails(place, ParityError)
    assert "  fusion.y_local: differs by 0.001, " in message
    assert "  chain.y_local: differs by 0.001, " in message


def test_a_chain_that_differs_where_no_graph_does(place: Path, wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong("y_local", 1e-3)
    monkeypatch.setattr(compare, "compare_graphs", lambda *ignored, **precision: [])
    message = assert_fails(place, ParityError)
    assert message.splitlines()[0].startswith(f"1 of {len(CHAIN)} outputs ")
    assert "  chain.y_local: differs by 0.001, " in message


def test_a_graph_that_computes_nan(place: Path, wrong: Wrong) -> None:
    wrong("saliency_patches", np.nan)
    assert "'saliency_patches' are NaN" in assert_fails(place, BackendRunError)


def test_message_of_missed_outputs() -> None:
    table = [
        Comparison(name="global.z_g", max_abs=0.01234, mean_abs=0.001, limit=0.0005),
        Comparison(name="fusion.y_local", max_abs=1e-6, mean_abs=1e-7, limit=1e-4),
        Comparison(name="chain.patch_locations", max_abs=np.inf, mean_abs=np.inf, limit=0.0),
        Comparison(name="local.z_k", precision="fp16", max_abs=np.inf, mean_abs=np.inf, limit=0.01),
    ]
    with pytest.raises(ParityError) as caught:
        compare.require_parity(table)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 4 outputs disagree with the PyTorch reference; no bundle was written:"
    assert lines[1] == "  global.z_g: differs by 0.0123, limit 0.0005"
    assert lines[2] == "  chain.patch_locations: differs by inf, limit 0"
    assert lines[3] == "  local.z_k in fp16: differs by inf on average, limit 0.01"
    assert "report" in lines[4]
    compare.require_parity(table[1:2])
