"""Which engines this machine could run, for whoever asked for one that it cannot."""

from glam_deploy.bundle import Bundle
from glam_deploy.device.gpu import Gpu
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.cpu_features import BF16, features
from glam_deploy.engines.registry import OWNERS, Owner, check_engine, open_engines
from glam_deploy.errors import BackendUnavailable


def open_asked(name: str, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """As `registry.open_engines`; BackendUnavailable also says what could run here."""
    try:
        return open_engines(name, bundle, options)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error} {could_run()}") from error


def check_asked(name: str, bundle: Bundle, options: EngineOptions) -> None:
    """As `registry.check_engine`, and that there is a GPU where one is needed; says what could run here."""
    try:
        check_engine(name, bundle, options)
        if name in OWNERS and OWNERS[name].gpu:
            Gpu(options.device or 0)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error} {could_run()}") from error


def could_run() -> str:
    """A sentence for whoever lacks something."""
    return f"These could run here, where the bundle has them: {', '.join(runnable())}."


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
