"""Configuration of the appliance: `glam.toml`, checked before anything starts.

Sections are frozen, an unknown key is an error, and the defaults are restrictive: loopback only, no sender allowed,
gated engines only. docs/appliance.md explains each key to the administrator.
"""

from glam_deploy.appliance.config.fetch import Fetch, PriorityRules
from glam_deploy.appliance.config.listeners import Receive, Sender, Tls, TlsListener, Web
from glam_deploy.appliance.config.parse import parse_config
from glam_deploy.appliance.config.processing import Accept, Assemble, ResultKind, Results, Retain, Worker
from glam_deploy.appliance.config.root import Config
from glam_deploy.appliance.config.section import Section
from glam_deploy.appliance.config.targets import Dispatch, Target

__all__ = [
    "Accept",
    "Assemble",
    "Config",
    "Dispatch",
    "Fetch",
    "PriorityRules",
    "Receive",
    "ResultKind",
    "Results",
    "Retain",
    "Section",
    "Sender",
    "Target",
    "Tls",
    "TlsListener",
    "Web",
    "Worker",
    "parse_config",
]
