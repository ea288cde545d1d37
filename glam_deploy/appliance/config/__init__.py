"""Configuration of the appliance: `glam.toml`, checked before anything starts.

Sections are frozen, an unknown key is an error, and the defaults are restrictive: loopback only, no sender allowed,
gated engines only. docs/appliance.md explains each key to the administrator.
"""

from glam_deploy.appliance.config.fetch import Fetch, PriorityRules
from glam_deploy.appliance.config.listeners import KeyPair, Receive, Sender, Tls, TlsListener
from glam_deploy.appliance.config.notify import Email, Fhir, Hl7, Notify, Webhook
from glam_deploy.appliance.config.parse import parse_config
from glam_deploy.appliance.config.processing import Accept, Assemble, BundleTrust, ResultKind, Results, Retain, Worker
from glam_deploy.appliance.config.root import Config
from glam_deploy.appliance.config.section import Section
from glam_deploy.appliance.config.standby import Standby
from glam_deploy.appliance.config.targets import Dispatch, Target
from glam_deploy.appliance.config.web import Oidc, Web, WebTls

__all__ = [
    "Accept",
    "Assemble",
    "BundleTrust",
    "Config",
    "Dispatch",
    "Email",
    "Fetch",
    "Fhir",
    "Hl7",
    "KeyPair",
    "Notify",
    "Oidc",
    "PriorityRules",
    "Receive",
    "ResultKind",
    "Results",
    "Retain",
    "Section",
    "Sender",
    "Standby",
    "Target",
    "Tls",
    "TlsListener",
    "Web",
    "WebTls",
    "Webhook",
    "Worker",
    "parse_config",
]
