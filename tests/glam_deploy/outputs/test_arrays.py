import numpy as np

from glam_deploy.outputs.writer import named_arrays, write_npz

ALWAYS = {"y_global", "y_scale", "y_local", "saliency_global", "saliency_patches", "patch_locations"}


def test_a_checkpoint_without_fusion_layer_has_no_such_arrays(make_result):
    assert set(named_arrays(make_result(), full=False, save_input=False)) == ALWAYS


def test_every_name_has_its_documented_shape_and_type(make_result):
    result = make_result(y_fusion=np.array([0.2, 0.4], np.float32), attention=np.array([0.9, 0.1], np.float32))
    named = named_arrays(result, full=True, save_input=True)
    assert {name: (array.dtype.name, array.shape) for name, array in named.items()} == {
        "y_global": ("float32", (2,)),
        "y_scale": ("float32", (3, 2)),
        "y_local": ("float32", (2,)),
        "y_fusion": ("float32", (2,)),
        "attention": ("float32", (2,)),
        "saliency_global": ("float32", (2, 184, 120)),
        "saliency_patches": ("float32", (2, 2, 128, 128)),
        "patch_locations": ("int64", (2, 2)),
        "saliency": ("float32", (2, 2944, 1920)),
        "saliency_source": ("float32", (2, 3000, 2000)),
        "input": ("float32", (2944, 1920)),
    }


def test_source_frame_saliency_lies_where_the_network_looked(make_result, right):
    saliency_global = np.zeros((2, 184, 120), np.float32)
    saliency_global[1, 50, 30] = 0.8
    result = make_result(
        placement=right,
        saliency_global=saliency_global,
        saliency_patches=np.zeros((1, 2, 128, 128), np.float32),
        patch_locations=np.array([[2400, 1400]], np.int64),
    )
    found = named_arrays(result, full=True, save_input=False)["saliency_source"]
    expected = np.zeros((2, 3000, 2000), np.float32)
    expected[1, 840:856, 1504:1520] = 0.4  # half of a map cell: rows 800..815 + 40, columns 1999 - (480..495)
    np.testing.assert_array_equal(found, expected)


def test_numpy_reads_back_what_was_written(make_result, tmp_path):
    named = named_arrays(make_result(), full=True, save_input=True)
    write_npz(tmp_path / "x.npz", named)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert list(archive.files) == list(named)
        for name, array in named.items():
            np.testing.assert_array_equal(archive[name], array, strict=True)


def test_same_arrays_same_bytes(make_result, tmp_path):
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, named_arrays(make_result(), full=False, save_input=False))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
