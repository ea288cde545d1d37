"""OpenID Connect providers on loopback: the certified `oidc-provider` of npm, and one that answers what a test says."""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from expected import need

from support.commands import ROOT

FOLDER = ROOT / "tests/glam_deploy/appliance/web/provider"
CLIENT, SECRET = "glam-deploy", "secret of the client 0123456789 & more"
GROUPS = {"anna": ["radiology", "pacs-admin"], "vera": ["radiology"], "otto": ["cardiology"]}
"""Users of the real provider and their groups: an operator, a viewer, and one without a role."""


def oidc_table(issuer: str, **keys: Any) -> dict[str, Any]:
    """The table [web.oidc] for a provider."""
    return {
        "issuer": issuer,
        "client_id": CLIENT,
        "roles_claim": "groups",
        "viewer": ["radiology"],
        "operator": ["pacs-admin"],
        **keys,
    }


@contextmanager
def real_provider(port: int, public_url: str, *, claims_in_id_token: bool = True, secret: bool = True) -> Iterator[str]:
    """npm's `oidc-provider`, with the appliance as its only client; gives its issuer."""
    node, package = shutil.which("node"), FOLDER / "node_modules/oidc-provider"
    lacking = "node (Debian's nodejs)" if not node else "" if package.exists() else f"`npm ci` in {FOLDER}"
    need("oidc-provider", lacking and f"{lacking}; `make web-test` does it")
    client = {
        "client_id": CLIENT,
        "redirect_uris": [f"{public_url}/login/callback"],
        "post_logout_redirect_uris": [f"{public_url}/login"],
        **({"client_secret": SECRET} if secret else {"token_endpoint_auth_method": "none"}),
    }
    asked = {"port": port, "clients": [client], "groups": GROUPS, "claims_in_id_token": claims_in_id_token}
    command = [str(node), str(FOLDER / "provider.js"), json.dumps(asked)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "listening\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


@dataclass
class FalseProvider:
    """A provider that signs with RSA by hand, and answers as a test has set it."""

    issuer: str
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    claims: dict[str, Any] = field(default_factory=dict)
    """Changes of the claims of the next ID token: None leaves one out, a timedelta is a time from now on."""
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "one"})
    metadata: dict[str, Any] = field(default_factory=dict)
    """Changes of the metadata."""
    token_status: int = 200
    nonce: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    """Forms that the token endpoint got."""

    def discovery(self) -> dict[str, Any]:
        paths = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "jwks"}
        return {
            "issuer": self.issuer,
            **{name: f"{self.issuer}/{path}" for name, path in paths.items()},
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            **self.metadata,
        }

    def answer_to(self, query: str) -> str:
        """Where a browser goes that asks for a login: back, as the same user every time."""
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        self.nonce = asked["nonce"]
        return f"{asked['redirect_uri']}?{urlencode({'code': 'a-code', 'state': asked['state']})}"

    def jwks(self) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        n, e = (_base64(value.to_bytes((value.bit_length() + 7) // 8)) for value in (numbers.n, numbers.e))
        return {"keys": [{"kty": "RSA", "use": "sig", "kid": "one", "n": n, "e": e}]}

    def id_token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "anna", "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": self.nonce}
        claims |= {"groups": ["radiology"], "preferred_username": "anna"} | self.claims
        content = {
            name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
            for name, value in claims.items()
            if value is not None
        }
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (self.header, content))
        return f"{signed}.{_base64(self._signature(signed.encode()))}"

    def _signature(self, content: bytes) -> bytes:
        match self.header["alg"]:
            case "none":
                return b""
            case "HS256":  # with the secret of the client, or the public key, as attackers would
                code = hmac.HMAC(SECRET.encode(), hashes.SHA256())
                code.update(content)
                return code.finalize()
            case _:
                return self.key.sign(content, padding.PKCS1v15(), hashes.SHA256())


@contextmanager
def false_provider() -> Iterator[FalseProvider]:
    """Serves until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/auth?"):
                self.send_response(303)
                self.send_header("Location", provider.answer_to(urlsplit(self.path).query))
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._answer(200, provider.jwks() if self.path == "/jwks" else provider.discovery())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            provider.asked.append({name: values[0] for name, values in form.items()})
            refused = provider.token_status != 200
            answer = (
                {"error": "invalid_grant"} if refused else {"token_type": "bearer", "id_token": provider.id_token()}
            )
            self._answer(provider.token_status, answer)

        def _answer(self, status: int, answer: Mapping[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = FalseProvider(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
