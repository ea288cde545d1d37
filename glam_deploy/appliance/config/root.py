"""The whole of `glam.toml`."""

from itertools import combinations
from typing import Literal

from pydantic import model_validator

from glam_deploy.appliance.config.fetch import Fetch, PriorityRules
from glam_deploy.appliance.config.listeners import Receive
from glam_deploy.appliance.config.notify import Notify
from glam_deploy.appliance.config.processing import Accept, Assemble, BundleTrust, ResultKind, Results, Retain, Worker
from glam_deploy.appliance.config.routes import Route, check_routes
from glam_deploy.appliance.config.section import File, Section
from glam_deploy.appliance.config.standby import Standby
from glam_deploy.appliance.config.targets import Dispatch, Target
from glam_deploy.appliance.config.web import Web

_ALL_INTERFACES = ("0.0.0.0", "::")


class Config(Section):
    """The whole of `glam.toml`."""

    license_acknowledged: Literal[True]
    """Must be true: the weights are for research only and not part of this software; results are not for diagnosis."""
    data: File
    receive: Receive = Receive()
    web: Web = Web()
    assemble: Assemble = Assemble()
    accept: Accept = Accept()
    worker: Worker
    bundle: BundleTrust = BundleTrust()
    results: Results = Results()
    targets: tuple[Target, ...] = ()
    routes: tuple[Route, ...] = ()
    """The first rule that applies to a study decides about its results; without any, all targets get them."""
    notify: tuple[Notify, ...] = ()
    dispatch: Dispatch = Dispatch()
    retain: Retain = Retain()
    standby: Standby = Standby()
    priority: PriorityRules = PriorityRules()
    fetch: Fetch | None = None
    """None: nothing is fetched."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Config":
        names = self.receivers
        if len(names) != len(set(names)):
            raise ValueError(f"targets or entries of [[notify]] share a name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _objects_are_made(self) -> "Config":
        for target in self.targets:
            if unmade := [kind for kind in target.objects or () if kind not in self.results.kinds]:
                raise ValueError(
                    f"target {target.name} gets {', '.join(unmade)}, which [results] does not make: set "
                    f"`{unmade[0]} = true` there, or remove it from `objects`"
                )
        return self

    @model_validator(mode="after")
    def _routes_are_reached(self) -> "Config":
        check_routes(self.routes, [target.name for target in self.targets])
        return self

    @property
    def receivers(self) -> tuple[str, ...]:
        """Names of all that something is sent to: targets, and entries of [[notify]]."""
        return tuple(each.name for each in (*self.targets, *self.notify))

    @model_validator(mode="after")
    def _fetch_fits(self) -> "Config":
        fetch = self.fetch
        if fetch is None:
            return self
        if unknown := [name for name in fetch.targets or () if name not in [target.name for target in self.targets]]:
            raise ValueError(f"fetch.targets names the unknown target {unknown[0]}: add it to [[targets]]")
        if fetch.moves and fetch.ae_title not in [sender.ae_title for sender in self.receive.senders]:
            raise ValueError(
                f'fetch.retrieve is "move", but {fetch.ae_title} may not send to this appliance: add it to '
                "[[receive.senders]]"
            )
        return self

    def unknown_senders(self) -> tuple[tuple[str, str], ...]:
        """Calling AE titles of rules from which nothing can be received: the key of the rule, and the title.

        [fetch] receives from its own AE title too, and routes apply without regard to case.
        """
        known = {sender.ae_title for sender in self.receive.senders}
        origins = {title.casefold() for title in (*known, (self.fetch and self.fetch.ae_title) or "")}
        urgent = [("priority.stat_senders", title) for title in self.priority.stat_senders if title not in known]
        routed = [
            (f"routes.{number}.calling_ae", title)
            for number, route in enumerate(self.routes)
            for title in route.calling_ae or ()
            if title.casefold() not in origins
        ]
        return (*urgent, *routed)

    def targets_of(self, route: Route | None) -> tuple[str, ...] | None:
        """Names of the targets of a study to which `route` applies (None: no route); None: it is not processed."""
        if route is None:
            return tuple(target.name for target in self.targets)
        return None if route.discard else route.targets

    def kinds_for(self, target: Target) -> tuple[ResultKind, ...]:
        """The kinds of objects that a target gets."""
        return self.results.kinds if target.objects is None else target.objects

    @model_validator(mode="after")
    def _ports_differ(self) -> "Config":
        receive, web = self.receive, self.web
        uses = [("receive.port", receive.host, receive.port), ("web.port", web.host, web.port)]
        if receive.tls:
            uses.append(("receive.tls.port", receive.host, receive.tls.port))
        for (one, host, port), (other, other_host, other_port) in combinations(uses, 2):
            if (
                port
                and port == other_port
                and (host == other_host or host in _ALL_INTERFACES or other_host in _ALL_INTERFACES)
            ):
                raise ValueError(f"{one} and {other} are both {port}: expected different ports")
        return self
