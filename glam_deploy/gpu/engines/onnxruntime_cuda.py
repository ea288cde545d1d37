"""ONNX Runtime engines with the CUDA execution provider."""

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnxruntime as ort

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.onnxruntime import (
    LIBRARY,
    Files,
    failed,
    graph_files,
    identity_of,
    interface,
    open_session,
)
from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable, BundleError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import compile_cubin
from glam_deploy.gpu.device.repeatable import only_repeatable
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines.base import Addresses, DeviceEngine, GpuEngines, gpu_engines
from glam_deploy.gpu.kernels.source import source
from glam_deploy.installation import exchange_command
from glam_deploy.networks import NetworkSpec, Stage

CUDA = "CUDAExecutionProvider"
CAPTURED_RELEASES = frozenset((1, minor) for minor in range(27, 32))
"""Releases of ONNX Runtime whose runs are captured: a later one may share the memory of intermediate results between
sessions, which would make the results of a graph wrong without an error. The library in the wheel of 1.31.1 has the
functions named in `OnnxRuntimeCudaRun`; its source, and that of the others, was read in versions near them."""
CAPTURE_ERROR = re.compile(r"CUDA failure 90[0-8]\b")
"""Messages of ONNX Runtime (cuda_call.cc) with the errors of stream captures; CUDA Runtime API, "cudaError_t"."""


class OnnxRuntimeCudaEngine(DeviceEngine):
    """Runs the graph of a stage completely on the GPU: a node that the CUDA provider does not support is an error.

    Every binding has its own session, because a session is bound to one stream. The batch size of a session is fixed,
    so that shape arithmetic is done when it opens; otherwise ONNX Runtime does it on the CPU and waits in every run.
    """

    def __init__(
        self, graph: bytes, stage: Stage, *, network: NetworkSpec, gpu: Gpu, channels_last: bool = False
    ) -> None:
        """`channels_last`: convolutions in the layout NHWC, which half-precision matrix units read without a copy."""
        super().__init__(stage, network=network, gpu=gpu)
        self._graph, self._channels_last = graph, channels_last
        with gpu.stream() as stream:  # it must outlive the session
            inputs, outputs = interface(self._open(1, stream))
        self._require_interface(inputs, outputs, network.contract(stage))

    def scratch_bytes(self, batch: int) -> int:
        """0, because each session has its own arena."""
        return 0

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "OnnxRuntimeCudaRun":
        session = self._open(batch, stream)
        binding = session.io_binding()
        for bind, expected in (
            (binding.bind_input, self.contract.inputs),
            (binding.bind_output, self.contract.outputs),
        ):
            for name, t in expected.items():
                bind(name, "cuda", self.gpu.index, np.dtype(t.dtype).type, (batch, *t.shape), tensors[name])
        return OnnxRuntimeCudaRun(self, session, binding, stream)

    def _open(self, batch: int, stream: Stream) -> ort.InferenceSession:
        settings = ort.SessionOptions()
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        settings.add_session_config_entry("session.use_env_allocators", "0")  # an arena of its own, see the run
        settings.add_free_dimension_override_by_name("batch", batch)
        provider = (CUDA, _cuda_settings(self.gpu, stream, channels_last=self._channels_last))
        with self.gpu.current():
            try:
                return open_session(self.stage, self._graph, settings, provider)
            except BackendBuildError:
                self._require_loaded(provider)
                raise

    def _require_loaded(self, provider: tuple[str, dict[str, object]]) -> None:
        """Raises BackendUnavailable if CUDA libraries do not load: ONNX Runtime then silently drops the provider."""
        if CUDA not in open_session(self.stage, self._graph, ort.SessionOptions(), provider).get_providers():
            raise BackendUnavailable(
                f"{LIBRARY} cannot load its CUDA provider: cuDNN or a CUDA library is missing or has another version "
                f"than expected. Install ONNX Runtime with its libraries: {exchange_command()}."
            )


class OnnxRuntimeCudaRun:
    """A session with bound addresses. Not thread-safe, but successive calls may come from different threads.

    Facts about ONNX Runtime's CUDA provider on which a capture relies (microsoft/onnxruntime, core/providers/cuda):

    - With `user_compute_stream` all its work is in this stream, and a run does not wait for it
      (cuda_stream_handle.cc, `CudaStream::Flush`; cuda_execution_provider.cc, `OnRunEnd`).
    - Its own graphs also start after two runs, because the second run allocates the memory pattern of the first
      (`min_num_runs_before_cuda_graph_capture_`; pull 15005). They are not used: one is captured for each thread, in a
      mode that forbids calls of other threads (cuda_graph.cc, `CaptureBegin`).
    - Intermediate results are in an arena of the session (`use_env_allocators` is 0), which returns no memory before
      the session is closed. The CUDA plugin provider, whose sessions share an arena, is another provider.
    - Handles of cuBLAS and cuDNN are kept in a pool for the next run, in whichever thread (`ReleasePerThreadContext`).
    - A kernel that copies arguments from the host (`CudaAsyncBuffer`, as in Concat with inputs of different lengths)
      frees them in a host function of the stream (cuda_stream_handle.cc, `CleanUpOnRunEnd`). In a graph it would be
      called at each launch. So `only_repeatable` rejects such a recording.
    """

    def __init__(self, engine: OnnxRuntimeCudaEngine, session: Any, binding: Any, stream: Stream) -> None:
        self._binding, self._session = binding, session  # first, because attributes are freed in this order
        self._engine, self._stream = engine, stream
        self._before, self._after = engine.gpu.event(), engine.gpu.event()
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._warm = False

    @property
    def capturable(self) -> bool:
        """Whether two runs have allocated all memory, and this release of ONNX Runtime is one of CAPTURED_RELEASES."""
        return self._warm and _release() in CAPTURED_RELEASES

    def enqueue(self, stream: Stream) -> None:
        """Run on the session's own stream; if `stream` is another one, events order the work of both streams.

        The first call runs the session twice.
        """
        if stream.is_capturing:
            with only_repeatable(stream, of=f"{self._engine.stage} engine: {LIBRARY}"):
                self._enqueue_between(stream, self._run)
        elif self._warm:
            self._enqueue_between(stream, self._run_uncaptured)
        else:
            self._enqueue_between(stream, self._run_uncaptured, self._run_uncaptured)
            self._warm = True

    def _enqueue_between(self, stream: Stream, *runs: Callable[[], None]) -> None:
        other = stream.handle != self._stream.handle
        if other:
            stream.record(self._before)
            self._stream.wait(self._before)
        for run in runs:
            run()
        if other:
            self._stream.record(self._after)
            stream.wait(self._after)

    def _run_uncaptured(self) -> None:
        """Run the session; once more if the error is that of an earlier capture.

        The CUDA runtime keeps the error of a failed call until it is read. If that call was made in a capture that has
        failed, the next run in the same thread reads its error after its first launch. Reading clears it.
        """
        try:
            self._run()
        except BackendRunError as error:
            if not CAPTURE_ERROR.search(str(error)):
                raise
            self._run()

    def _run(self) -> None:
        try:
            with self._engine.gpu.current():
                self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # as in open_session
            raise failed(self._engine.stage, error) from error


def _release() -> tuple[int, int]:
    major, minor = ort.__version__.split(".")[:2]
    return int(major), int(minor)


def _cuda_settings(gpu: Gpu, stream: Stream, *, channels_last: bool) -> dict[str, object]:
    settings = {"prefer_nhwc": 1} if channels_last else {}
    return settings | {
        "device_id": gpu.index,
        "user_compute_stream": stream.handle,
        "use_tf32": 0,  # TF32 is on by default and has only ten bits of mantissa
        # the default times all algorithms, so the choice, and with it the rounding, may change at each start
        "cudnn_conv_algo_search": "HEURISTIC",
        # by default the arena doubles at each growth and never shrinks
        "arena_extend_strategy": "kSameAsRequested",
    }


def open_engines(bundle: Bundle, options: EngineOptions) -> GpuEngines:
    """Open the graphs of a bundle with the CUDA provider.

    Raises BackendUnavailable if the provider, one of its libraries or the GPU is missing; BundleError;
    BackendBuildError.
    """
    return _open("onnx-cuda", bundle, options, graph_files(bundle, options))


def open_half_engines(bundle: Bundle, options: EngineOptions) -> GpuEngines:
    """Open the FP16 graphs of a bundle, and its FP32 fusion graph. Raises as `open_engines`."""
    return _open("onnx-cuda-fp16", bundle, options, plan_half_engines(bundle, options), channels_last=True)


def plan_half_engines(bundle: Bundle, options: EngineOptions) -> Files:
    """Files of the half-precision engines. Raises BundleError if the bundle lacks one."""
    files = graph_files(bundle, options)
    if missing := next((file for file in files.values() if file not in bundle.files), None):
        raise BundleError(
            f"{bundle.folder}: has no {missing}. Export the checkpoint again with --precision {options.precision}, or "
            f"choose the engine onnx-cuda."
        )
    return files


def _open(
    name: str, bundle: Bundle, options: EngineOptions, files: Files, *, channels_last: bool = False
) -> GpuEngines:
    _require_provider(name)
    gpu = Gpu(options.device or 0)
    engines = {
        stage: OnnxRuntimeCudaEngine(
            bundle.read(file),
            stage,
            network=bundle.network,
            gpu=gpu,
            channels_last=channels_last and stage != "fusion",  # it has no convolution
        )
        for stage, file in files.items()
    }
    cubin = compile_cubin(source(bundle.network), architecture=gpu.architecture, name="kernels.cu")
    identity = identity_of(name, bundle, options, files)
    return gpu_engines(bundle, engines, identity, gpu=gpu, cubin=cubin)


def _require_provider(name: str) -> None:
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints missing libraries; the session reports them again
            ort.preload_dlls()
    if CUDA not in ort.get_available_providers():
        raise BackendUnavailable(
            f"engine {name!r} needs ONNX Runtime's CUDA provider, which the installed package {LIBRARY} lacks. The "
            f"packages onnxruntime and onnxruntime-gpu cannot be installed together. To switch to onnxruntime-gpu, "
            f"which also runs the engine onnx: {exchange_command()}."
        )
