"""Which engines this machine could run."""

from glam_deploy.device.gpu import Gpu
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import BackendUnavailable


def runnable() -> list[str]:
    """Names of the registry whose packages are installed, and whose GPU is there; the bundle may still lack them."""
    gpu = _has_gpu()
    return [name for name, owner in OWNERS.items() if not owner.missing and (gpu or not owner.gpu)]


def _has_gpu() -> bool:
    try:
        Gpu(0)
    except BackendUnavailable:
        return False
    return True
