"""config.pbtxt as Triton's own schema reads it, and the graphs' tensors as ONNX Runtime reads them from the files."""

from importlib import import_module
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from expected import need
from support.served import versions, write_repository
from support.triton_server import missing

from glam_deploy.networks import NETWORKS, NetworkSpec
from glam_deploy.serving.config import CONFIG, Instances, ModelConfig
from glam_deploy.serving.tensors import inputs_of, outputs_of

pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ONNX_TYPES = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}


def parsed(text: str) -> Any:
    need("triton", missing())
    schema = import_module("tritonclient.grpc.model_config_pb2")
    return import_module("google.protobuf.text_format").Parse(text, schema.ModelConfig())


def test_pipeline(tmp_path: Path) -> None:
    packages = tmp_path / 'a "b"\\c'
    packages.mkdir()
    repository = write_repository(tmp_path, "--batch", "3", "--instances", "2", "--site-packages", str(packages))
    config = parsed((repository / "glam" / CONFIG).read_text())
    (version,) = versions(repository)
    assert (config.name, config.backend, config.max_batch_size) == ("glam", "python", 3)
    assert list(config.version_policy.specific.versions) == [int(version.name)]
    policy = config.dynamic_batching.default_queue_policy
    assert (policy.timeout_action, policy.max_queue_size) == (policy.REJECT, 64)
    assert policy.default_timeout_microseconds == 300_000_000
    assert [(one.name, list(one.dims), one.optional, one.allow_ragged_batch) for one in config.input] == [
        ("DICOM", [-1], True, True),
        ("IMAGE", [2944, 1920], True, True),
    ]
    (group,) = config.instance_group
    assert (group.count, group.KIND_CPU, list(group.gpus)) == (2, group.kind, [])
    assert config.parameters["site_packages"].string_value == str(packages)
    assert int(config.parameters["digest"].string_value[:13], 16) + 1 == int(version.name)


@pytest.mark.parametrize("stage", ["global", "local", "fusion"])
def test_graphs_have_the_tensors_of_their_files(stage: str, tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    config = parsed((repository / f"glam_{stage}" / CONFIG).read_text())
    (version,) = versions(repository, f"glam_{stage}")
    assert config.platform == "onnxruntime_onnx"
    assert list(config.version_policy.specific.versions) == [int(version.name)]
    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    for tensors, file in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        kind = type(config).DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type
        found = {one.name: (ONNX_TYPES[kind.values_by_number[one.data_type].name], list(one.dims)) for one in tensors}
        assert found == {one.name: (one.type, one.shape[1:]) for one in file}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda one: f"{one.name}-{one.aggregation}")
def test_several_gpus_and_every_network(network: NetworkSpec) -> None:
    patches = 6 if network.selection else 0
    made = ModelConfig(
        name=network.name.lower(),
        runs_on=("platform", "tensorrt_plan"),
        version=2**52,
        largest_batch=4,
        inputs=inputs_of(network),
        outputs=outputs_of(network, patches),
        dynamic_batching=False,
        instances=Instances(count=1, gpus=(0, 3)),
    )
    config = parsed(made.text())
    (group,) = config.instance_group
    assert (group.KIND_GPU, list(group.gpus)) == (group.kind, [0, 3])
    assert list(config.version_policy.specific.versions) == [2**52]
    assert not config.HasField("dynamic_batching")
    assert {one.name: tuple(one.dims) for one in config.output} == {
        name: tensor.shape for name, tensor in outputs_of(network, patches).items()
    }
