"""The OpenID Connect provider: discovery, authorization code flow with PKCE, checks of the ID token, roles.

OpenID Connect Core 1.0 and Discovery 1.0, RFC 7636 (PKCE) and RFC 9207 (issuer of a response). The only importer of
authlib and joserfc.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from glam_deploy.appliance.config import Oidc
from glam_deploy.appliance.web.attempts import Attempt
from glam_deploy.appliance.web.sessions import Role, User, shown_name
from glam_deploy.dicom.net.bounded_http import BoundedHttp, Reply
from glam_deploy.dicom.net.dicomweb import WebPeer, connect, failure_kind
from glam_deploy.errors import PeerError

ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
)
"""Signatures by a key pair. Neither `none` nor HMAC, with which a public key or the client secret could sign."""
METADATA_S = 3600.0
"""The provider's metadata and keys are read again after this time; its keys also for an unknown key id."""
REQUEST_S = 10.0
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL_ENDPOINTS = ("userinfo_endpoint", "end_session_endpoint")

Claims = Mapping[str, Any]


class ProviderError(Exception):
    """The provider did not let a user in. `code` is for the audit log, the message for pages."""

    def __init__(self, code: str, message: str, *, name: str | None = None) -> None:
        """`name`: name of a user that the provider has authenticated, for the audit log."""
        super().__init__(message)
        self.code, self.name = code, name


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached, or answers what no provider answers."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A user that the provider has authenticated."""

    user: User
    id_token: str


class Provider:
    """A provider and the appliance's registration there; safe to share between threads."""

    def __init__(
        self,
        config: Oidc,
        *,
        secret: str | None,
        redirect_uri: str,
        after_logout_uri: str,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`secret`: client secret; URIs as registered at the provider; `now`: wall clock, for the times in tokens."""
        self._config, self._secret = config, secret
        self._redirect_uri, self._after_logout_uri = redirect_uri, after_logout_uri
        self._now, self._monotonic = now, monotonic
        self._lock = threading.Lock()
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: KeySet | None = None

    @property
    def name(self) -> str:
        """Host name of the provider."""
        return urlsplit(self._config.issuer).hostname or ""

    def authorization_url(self, attempt: Attempt) -> str:
        """Where a browser logs in. Raises ProviderUnavailable."""
        url: str = prepare_grant_uri(
            self.metadata()["authorization_endpoint"],
            client_id=self._config.client_id,
            response_type="code",
            redirect_uri=self._redirect_uri,
            scope=" ".join(self._config.scopes),
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return url

    def identify(self, code: str, issuer: str | None, attempt: Attempt) -> Identity:
        """The user of an authorization code. Raises ProviderError.

        `issuer`: parameter `iss` of the response (RFC 9207), with which a mix-up of providers is found.
        """
        metadata = self.metadata()
        required = metadata.get("authorization_response_iss_parameter_supported") is True
        if issuer != self._config.issuer and (issuer is not None or required):
            raise ProviderError("oidc_issuer", "The answer is of another login provider than the configured one.")
        tokens = self._tokens(metadata, code, attempt.verifier)
        id_token = tokens.get("id_token")
        if not isinstance(id_token, str):
            raise ProviderError("oidc_id_token", "The login provider sent no ID token.")
        claims = self._verified(metadata, id_token, attempt.nonce, tokens.get("access_token"))
        if _at(claims, self._config.roles_claim) is None or _at(claims, self._config.name_claim) is None:
            claims = {**self._user_info(metadata, tokens.get("access_token"), claims["sub"]), **claims}
        return Identity(user=user_of(claims, self._config), id_token=id_token)

    def logout_url(self, id_token: str) -> str | None:
        """Where a browser ends the provider's own session, None without such a place. Raises ProviderUnavailable."""
        endpoint = self.metadata().get("end_session_endpoint")
        if endpoint is None:
            return None
        given = {"id_token_hint": id_token, "client_id": self._config.client_id}
        url: str = add_params_to_uri(endpoint, [*given.items(), ("post_logout_redirect_uri", self._after_logout_uri)])
        return url

    def metadata(self) -> dict[str, Any]:
        """The provider's metadata, at most METADATA_S old. Raises ProviderUnavailable."""
        with self._lock:
            if self._metadata is None or self._monotonic() - self._metadata[0] > METADATA_S:
                found, _ = discover(self._config)
                self._metadata, self._keys = (self._monotonic(), found), None
            return self._metadata[1]

    def _tokens(self, metadata: Claims, code: str, verifier: str) -> dict[str, Any]:
        """The answer of the token endpoint for an authorization code."""
        body = prepare_token_request(
            "authorization_code", redirect_uri=self._redirect_uri, code=code, code_verifier=verifier
        )
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        auth = self._client_authentication(metadata)
        url, headers, body = auth.prepare("POST", metadata["token_endpoint"], headers, body)
        reply = self._request("POST", url, headers=headers, body=body.encode())
        answer = reply.json()
        if reply.status in (400, 401, 403):
            raise ProviderError("oidc_code", f"The login provider refused it{_error_code(answer)}: log in again.")
        if reply.status != 200 or not isinstance(answer, dict):
            raise ProviderUnavailable("oidc_unavailable", f"{self.name} answered with status {reply.status}.")
        return answer

    def _client_authentication(self, metadata: Claims) -> ClientAuth:
        """As the provider supports it; client_secret_basic by default (OpenID Connect Discovery 1.0, section 3)."""
        client_id, secret = self._config.client_id, self._secret
        if secret is None:
            return ClientAuth(client_id, None, "none")
        methods = metadata.get("token_endpoint_auth_methods_supported")
        if isinstance(methods, list) and "client_secret_basic" not in methods:
            return ClientAuth(client_id, secret, "client_secret_post")
        # RFC 6749, 2.3.1: both are encoded before the encoding of basic authentication
        return ClientAuth(quote(client_id, safe=""), quote(secret, safe=""), "client_secret_basic")

    def _verified(self, metadata: Claims, id_token: str, nonce: str, access_token: object) -> dict[str, Any]:
        """The claims of an ID token whose signature, issuer, audience, times and nonce are right."""
        expected = {"iss": [self._config.issuer], "aud": [self._config.client_id]}
        options = {name: {"essential": True, "values": values} for name, values in expected.items()}
        params = {"nonce": nonce, "client_id": self._config.client_id}
        params |= {"access_token": access_token} if isinstance(access_token, str) else {}
        try:
            token = self._decoded(metadata, id_token)
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(now=int(self._now()), leeway=int(self._config.clock_skew_s))
            if not claims["sub"]:
                raise ValueError
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderError(
                "oidc_id_token", f"The ID token of the login provider is not valid ({_reason(error)}): log in again."
            ) from error
        return dict(claims)

    def _decoded(self, metadata: Claims, id_token: str) -> jwt.Token:
        named = metadata.get("id_token_signing_alg_values_supported")
        allowed = [name for name in (named if isinstance(named, list) else ["RS256"]) if name in ALGORITHMS]
        registry = JWSRegistry(algorithms=allowed, strict_check_header=False)
        try:
            return jwt.decode(id_token, self._key_set(metadata), registry=registry)
        except InvalidKeyIdError:  # the provider has new keys
            return jwt.decode(id_token, self._key_set(metadata, again=True), registry=registry)

    def _key_set(self, metadata: Claims, *, again: bool = False) -> KeySet:
        with self._lock:
            if self._keys is None or again:
                answer = self._request("GET", metadata["jwks_uri"]).json()
                try:
                    self._keys = KeySet.import_key_set(answer)
                except (JoseError, ValueError, TypeError, KeyError) as error:
                    raise ProviderUnavailable("oidc_unavailable", f"{self.name} has no usable keys.") from error
            return self._keys

    def _user_info(self, metadata: Claims, access_token: object, subject: str) -> dict[str, Any]:
        """Claims of the userinfo endpoint about the same user; none without that endpoint."""
        endpoint = metadata.get("userinfo_endpoint")
        if endpoint is None or not isinstance(access_token, str):
            return {}
        reply = self._request("GET", endpoint, headers={"Authorization": f"Bearer {access_token}"})
        answer = reply.json()
        if reply.status != 200 or not isinstance(answer, dict):
            return {}  # also where it is signed, which is not requested
        if answer.get("sub") != subject:
            raise ProviderError(
                "oidc_subject", "The login provider described another user than the one that logged in."
            )
        return answer

    def _request(self, method: str, url: str, **options: Any) -> Reply:
        with closing(_connection(self._config)) as http:
            return _answered(http, self._config, method, url, **options)


def discover(config: Oidc) -> tuple[dict[str, Any], str | None]:
    """The provider's metadata, checked, and the header Date of its answer. Raises ProviderUnavailable."""
    url = f"{config.issuer.rstrip('/')}/.well-known/openid-configuration"
    with closing(_connection(config)) as http:
        reply = _answered(http, config, "GET", url)
    found, name = reply.json(), urlsplit(config.issuer).hostname
    if reply.status != 200 or not isinstance(found, dict):
        raise ProviderUnavailable("oidc_unavailable", f"{name} has no OpenID Connect metadata (status {reply.status}).")
    if found.get("issuer") != config.issuer:
        given = shown_name(str(found.get("issuer")))
        raise ProviderUnavailable("oidc_issuer", f"{name} is the issuer {given}, expected that of web.oidc.issuer.")
    for endpoint in (*_ENDPOINTS, *(each for each in _OPTIONAL_ENDPOINTS if found.get(each) is not None)):
        if not _is_endpoint(found.get(endpoint), config):
            raise ProviderUnavailable("oidc_unavailable", f"{name} has no {endpoint} with https.")
    return found, reply.headers.get("Date")


def user_of(claims: Claims, config: Oidc) -> User:
    """The user that claims describe. Raises ProviderError for one without a role."""
    named = _at(claims, config.name_claim)
    name = shown_name(named if isinstance(named, str) and named.strip() else str(claims["sub"]))
    given = _at(claims, config.roles_claim)
    groups = given if isinstance(given, list) else [given]
    role = _role([each for each in groups if isinstance(each, str)], config)
    if role is None:
        raise ProviderError("no_role", "You have logged in, but none of your groups may use these pages.", name=name)
    return User(name=name, role=role)


def _role(groups: Collection[str], config: Oidc) -> Role | None:
    if not set(config.operator).isdisjoint(groups):
        return "operator"
    return None if set(config.viewer).isdisjoint(groups) else "viewer"


def _at(claims: Claims, path: str) -> Any:
    """The claim with this name, which may have dots, or with this path; None if there is none."""
    if path in claims:
        return claims[path]
    first, _, rest = path.partition(".")
    inner = claims.get(first)
    return _at(inner, rest) if rest and isinstance(inner, dict) else None


def _connection(config: Oidc) -> BoundedHttp:
    try:
        return connect(WebPeer(url=config.issuer, authority=config.authority, timeout_s=REQUEST_S / 2))
    except PeerError as error:
        raise ProviderUnavailable("oidc_unavailable", f"web.oidc.authority {error}.") from error


def _answered(http: BoundedHttp, config: Oidc, method: str, url: str, **options: Any) -> Reply:
    try:
        return http.request(method, url, seconds=REQUEST_S, **options)
    except OSError as error:  # requests.RequestException is one
        reason = http.exceeded or failure_kind(error)
        name = urlsplit(config.issuer).hostname
        raise ProviderUnavailable("oidc_unavailable", f"{name} cannot be used: {reason}.") from error


def _is_endpoint(value: object, config: Oidc) -> bool:
    """Whether a value is an https URL; http where the issuer itself is on this machine."""
    schemes = ("https", "http") if config.issuer.startswith("http:") else ("https",)
    return isinstance(value, str) and urlsplit(value).scheme in schemes and bool(urlsplit(value).hostname)


def _error_code(answer: object) -> str:
    """The error code of a token endpoint (RFC 6749, 5.2), in parentheses; nothing else that it wrote."""
    code = answer.get("error") if isinstance(answer, dict) else None
    known = ("invalid_grant", "invalid_client", "invalid_request", "unauthorized_client", "unsupported_grant_type")
    return f" ({code})" if code in known else ""


def _reason(error: Exception) -> str:
    """Kind of a fault and the claim, never a value."""
    claim = getattr(error, "claim", None)
    return f"{getattr(error, 'error', None) or 'malformed'}{f', {claim}' if isinstance(claim, str) else ''}"
