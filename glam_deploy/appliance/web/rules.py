"""What the section `web` of a configuration must keep to, so that nobody gets in who should not."""

import ipaddress
from pathlib import Path

from cryptography import x509

from glam_deploy.appliance.config import Web
from glam_deploy.appliance.web.access import read_token
from glam_deploy.errors import UsageError


def check_web(web: Web, *, missing_ok: bool = False) -> None:
    """Raises UsageError as `check_reach`, and for a token file or a certificate that will not do.

    `missing_ok`: a file that does not exist is passed over.
    """
    check_reach(web)
    if web.token_file is not None and not (missing_ok and not web.token_file.exists()):
        read_token(web.token_file)
    if web.tls is not None and not (missing_ok and not web.tls.certificate.exists()):
        names_in(web.tls.certificate)


def check_reach(web: Web) -> None:
    """Raises UsageError for a section that would let anybody in; looks at no file."""
    if web.tls is None and not _is_loopback(web.host):
        raise UsageError(
            f"web.host is {web.host}, which others can reach: without web.tls only loopback (127.0.0.1, ::1) is served"
        )
    if web.tls is None and web.token_file is None:
        raise UsageError(
            "web has neither token_file nor tls, so everybody on this machine could see the studies: name a token file "
            "(openssl rand -hex 32 > web.token; chmod 0600 web.token), or certificates"
        )


def names_in(certificate: Path) -> set[str]:
    """Subject alternative names, in lower case. Raises UsageError."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise UsageError(
            f"web.tls.certificate {certificate} is no PEM certificate with subject alternative names "
            f"({type(error).__name__}): make one that names the host that people type"
        ) from error
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
