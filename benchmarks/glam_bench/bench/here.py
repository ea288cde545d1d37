"""Which engines this machine could run."""

from glam_deploy.device.gpu import Gpu
from glam_deploy.engines.cpu_features import BF16, features
from glam_deploy.engines.registry import OWNERS, Owner
from glam_deploy.errors import BackendUnavailable


def runnable() -> list[str]:
    """Names of the registry whose packages and hardware are here; the bundle may still lack them."""
    gpu = _has_gpu()
    return [name for name, owner in OWNERS.items() if not owner.missing and (gpu if owner.gpu else _fits_cpu(owner))]


def _fits_cpu(owner: Owner) -> bool:
    return owner.precision != "bf16" or bool(features() & {*BF16})


def _has_gpu() -> bool:
    try:
        Gpu(0)
    except BackendUnavailable:
        return False
    return True
