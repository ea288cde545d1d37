"""Writing of a Triton model repository: the whole pipeline, and the graphs of its stages.

    repository/
      glam/            config.pbtxt, <version>/model.py, <version>/served.json, <version>/bundle/
      glam_global/     config.pbtxt, <version>/model.onnx or model.plan; likewise glam_local and glam_fusion

The version of a stage's model follows from its file, that of the pipeline from `Served`. A version is written to a
temporary folder beside the repository and then renamed. config.pbtxt, which names the version to serve, is replaced
after that, so that a server never sees half of a version. Other versions stay where they are.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from glam_deploy.bundle import MANIFEST, SIGNATURE, Bundle, EngineEntry, graph_file, locked
from glam_deploy.bundle.onnx_file import require_plain_graph
from glam_deploy.bundle.write import make_readable
from glam_deploy.errors import BundleError, UsageError, unwritable
from glam_deploy.json_records import to_json
from glam_deploy.networks import Stage
from glam_deploy.regular import read_regular
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.serving.config import CONFIG, MARK, Instances, ModelConfig
from glam_deploy.serving.served import BUNDLE, SERVED, Served, read_served, version_number
from glam_deploy.serving.tensors import inputs_of, outputs_of

Graphs = Literal["onnx", "tensorrt", "none"]
"""Which files the models of the stages run: the ONNX graphs in FP32, the TensorRT engines, or there are none."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to write."""

    bundle: Bundle
    served: Served
    pipeline: ModelConfig
    stages: Mapping[Stage, ModelConfig]
    files: Mapping[Stage, str]
    """Stage -> its file in the bundle."""


def plan(
    bundle: Bundle,
    pipeline: Pipeline,
    served: Served,
    *,
    largest_batch: int,
    instances: Instances,
    graphs: Graphs,
    site_packages: tuple[Path, ...],
) -> Plan:
    """Configurations of all models. `pipeline`: opened with the engine of `served`.

    Raises UsageError for TensorRT models of an engine that Triton's TensorRT backend cannot load.
    """
    network, name = bundle.network, bundle.network.name.lower()
    parameters = {"bundle": served.bundle, "engine": served.engine, "engine_digest": served.engine_digest}
    whole = ModelConfig(
        name=name,
        runs_on=("backend", "python"),
        version=served.version,
        largest_batch=largest_batch,
        inputs=inputs_of(network),
        outputs=outputs_of(network, pipeline.patches),
        alternative_inputs=True,
        dynamic_batching=True,
        instances=instances,
        parameters={"site_packages": ":".join(map(str, site_packages)), "digest": served.digest, **parameters},
    )
    files = _graph_files(bundle, pipeline, graphs)
    stages = {stage: _stage(bundle, stage, file, instances) for stage, file in files.items()}
    return Plan(bundle=bundle, served=served, pipeline=whole, stages=stages, files=files)


def _graph_files(bundle: Bundle, pipeline: Pipeline, graphs: Graphs) -> dict[Stage, str]:
    """Stage -> file in the bundle, for the models of the stages. Raises UsageError."""
    if graphs == "none":
        return {}
    if graphs == "onnx":
        return {stage: graph_file(stage) for stage in bundle.network.stages}
    identity = pipeline.identity
    if identity.flavour != "tensorrt":
        raise UsageError(
            f"--graphs tensorrt: the engine {identity.name} is of {identity.library}, and Triton's TensorRT backend "
            "loads engines of the flavour tensorrt only: choose such an --engine, --graphs onnx or --graphs none"
        )
    entry: EngineEntry = next(one for one in bundle.engines if one.key == identity.key)
    return {stage: entry.stages[stage].file for stage in bundle.network.stages}


def _stage(bundle: Bundle, stage: Stage, file: str, instances: Instances) -> ModelConfig:
    """Model of one stage. The server forms no batches, because `run` computes the views one by one."""
    onnx, digest = file.endswith(".onnx"), bundle.files[file].sha256
    contract = bundle.network.contract(stage, composed=onnx)
    return ModelConfig(
        name=f"{bundle.network.name.lower()}_{stage}",
        runs_on=("platform", "onnxruntime_onnx" if onnx else "tensorrt_plan"),
        version=version_number(digest),
        largest_batch=LARGEST_BATCH,
        inputs=contract.inputs,
        outputs=contract.outputs,
        dynamic_batching=False,
        instances=instances,
        parameters={"bundle": bundle.id, "digest": digest},
    )


LARGEST_BATCH = 4
"""Of the models of the stages: the largest that the first profile of every TensorRT engine takes."""


def write(repository: Path, wanted: Plan) -> dict[Path, int]:
    """Write the version of a plan into a repository, which is created if missing; folder of a model -> its version.

    The models of the stages come first, the pipeline last. A version that is there already is kept, and its models are
    configured to serve it, if its files are unchanged. Raises UsageError for a folder of the same name that glam-deploy
    did not write, and if the repository cannot be written, or is in the bundle or contains it; BundleError for a
    changed file of the bundle, and for a version with the same number and another digest.
    """
    models = [*wanted.stages.values(), wanted.pipeline]
    _require_apart(repository, wanted.bundle.folder)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        _require_writable(repository)
        with locked(repository), _beside(repository) as room:
            for model in models:
                _require_ours(repository / model.name)
            _require_same(repository / wanted.pipeline.name / str(wanted.served.version), wanted.served)
            for stage, model in wanted.stages.items():
                _put(repository, model, _stage_files(wanted, stage), room)
            _put(repository, wanted.pipeline, _pipeline_files(wanted), room)
    except OSError as error:
        raise UsageError(
            f"{repository}: cannot be written {unwritable(error)}, or give another folder with --out."
        ) from error
    return {repository / model.name: model.version for model in models}


def _require_apart(repository: Path, bundle: Path) -> None:
    """Raises UsageError if one of the two folders is, or is in, the other.

    A server takes each folder of a repository for a model, and a bundle with other files is damaged.
    """
    first, second = repository.resolve(), bundle.resolve()
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise UsageError(
            f"--out {repository} and the bundle {bundle} are one folder, or one is in the other: give a folder outside "
            "the bundle with --out, in which the bundle is not."
        )


def _require_writable(repository: Path) -> None:
    """Raises OSError with the reason: a rename into a mount point that is read-only tells of another device only."""
    with tempfile.TemporaryFile(dir=repository):
        pass


def _beside(repository: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in the same file system, outside the repository, in which the server looks for models."""
    place = repository.resolve()
    return tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent)


def _require_ours(folder: Path) -> None:
    if folder.exists() and not (folder / CONFIG).is_file():
        raise UsageError(f"{folder}: exists without {CONFIG}. Move it away, or give another folder with --out.")
    if folder.exists() and not read_regular(folder / CONFIG).startswith(MARK.encode()):
        raise UsageError(f"{folder}: is a model of another program. Move it away, or give another folder with --out.")


def _require_same(folder: Path, served: Served) -> None:
    if folder.exists() and (other := read_served(folder)).digest != served.digest:
        raise BundleError(
            f"{folder}: is the version of the digest {other.digest[:16]}, the new one has the same number and the "
            f"digest {served.digest[:16]}. Give another folder with --out."
        )


def _stage_files(wanted: Plan, stage: Stage) -> Iterator[tuple[str, bytes]]:
    name = wanted.files[stage]
    content, is_graph = wanted.bundle.read(name), name.endswith(".onnx")
    if is_graph:
        require_plain_graph(content, stage)
    yield f"model{'.onnx' if is_graph else '.plan'}", content


def _pipeline_files(wanted: Plan) -> Iterator[tuple[str, bytes]]:
    """All files of the version: the bundle as it is, so that its id and its gates are the same."""
    spec = find_spec("glam_deploy.serving.triton_model")
    assert spec and spec.origin
    yield "model.py", Path(spec.origin).read_bytes()
    yield SERVED, json.dumps(to_json(wanted.served), indent=2).encode()
    for name in wanted.bundle.files:
        yield f"{BUNDLE}/{name}", wanted.bundle.read(name)
    yield f"{BUNDLE}/{MANIFEST}", wanted.bundle.manifest_text()
    if (signature := wanted.bundle.folder / SIGNATURE).exists():
        yield f"{BUNDLE}/{SIGNATURE}", read_regular(signature)


def _require_unchanged(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Raises BundleError if a file of a version that is there already is not what would be written."""
    for name, content in files:
        if not (folder / name).is_file() or read_regular(folder / name) != content:
            raise BundleError(f"{folder / name}: is missing or was changed. Delete {folder}, and run this again.")


def _put(repository: Path, model: ModelConfig, files: Iterable[tuple[str, bytes]], room: str) -> None:
    """Write a version of a model unless it is there already, then the configuration that serves it."""
    target, staged, version = repository / model.name, Path(room) / model.name, str(model.version)
    staged.mkdir()
    if (target / version).exists():
        _require_unchanged(target / version, files)
    else:
        for name, content in files:
            path = staged / version / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (staged / CONFIG).write_text(model.text(), "utf-8")
    make_readable(staged)
    if not target.exists():
        staged.rename(target)
        return
    if (staged / version).exists():
        (staged / version).rename(target / version)
    (staged / CONFIG).replace(target / CONFIG)
