"""The dispatcher: a thread for each target."""

import threading

from glam_deploy.appliance.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """Send parcels until `stop` is set."""
    raise NotImplementedError
