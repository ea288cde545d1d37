"""Engines built into a bundle for GPUs that are not there."""

from glam_deploy.bundle import Bundle
from glam_deploy.gpu.engines.tensorrt import identity, store
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.identity import Machine
from glam_deploy.precision import Precision
from support import tensorrt as support_tensorrt

L4 = Machine(gpu="NVIDIA L4", compute_capability="8.9", driver="580.95.05")
A10 = Machine(gpu="NVIDIA A10", compute_capability="8.6", driver="580.95.05")


def build(
    bundle: Bundle,
    library: Library | None = None,
    *,
    precision: Precision = "fp16",
    machine: Machine = L4,
    report: store.Report = lambda step, detail, done: None,
) -> store.BuildOutcome:
    """Build for `machine` with the made-up library, if no other is given."""
    library = library or support_tensorrt.library()
    made_for = identity.made_for(library, machine, [])
    settled = store.Plan(library=library, precision=precision, made_for=made_for, machine=machine)
    return store.build_engines(bundle.folder, settled, report)
