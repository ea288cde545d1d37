"""E-mail: one plain-text message by SMTP (RFC 5321), over STARTTLS or TLS unless configured otherwise."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from email.message import EmailMessage
from email.utils import format_datetime

from glam_deploy.appliance.config import Email
from glam_deploy.appliance.notify.bounded_smtp import BoundedSmtp, SessionLimit
from glam_deploy.appliance.notify.client import secure_context, tls_cause
from glam_deploy.appliance.notify.message import Message, plain
from glam_deploy.appliance.targets import read_secret
from glam_deploy.errors import PeerBroke, PeerError

_PERMANENT = range(500, 600)
"""SMTP replies after which the same message will be refused again (RFC 5321, 4.2.1)."""


class EmailClient:
    """Sends by one SMTP server."""

    def __init__(self, entry: Email, timeout_s: float) -> None:
        self._entry, self._timeout_s = entry, timeout_s

    def send(self, message: Message) -> str:
        """Send one message to all recipients; those that the server refuses while it accepts others are in no reason,
        since a later try would send it to the others again.
        """
        entry = self._entry
        with self._session() as smtp:
            try:
                smtp.send_message(text_of(message, entry), entry.sender, list(entry.recipients))
            except smtplib.SMTPRecipientsRefused as error:
                return self._refusal(next(iter(error.recipients.values()))[0], "the recipients")
            except smtplib.SMTPSenderRefused as error:
                return self._refusal(error.smtp_code, "the sender")
            except smtplib.SMTPDataError as error:
                return self._refusal(error.smtp_code, "the message")
            except SessionLimit as error:
                raise PeerBroke(f"{entry.place}: {error}") from None
            except (smtplib.SMTPException, OSError):
                raise PeerBroke(f"{entry.place}: the connection was lost while the message was sent") from None
        return ""

    def check(self) -> str:
        place = self._entry.place
        with self._session() as smtp:
            try:
                code = smtp.noop()[0]
            except OSError:
                raise PeerError(f"{place} does not answer NOOP: check the log of the mail server") from None
        if code >= 400:
            raise PeerError(f"{place} answers {code} to NOOP: check the log of the mail server")
        protected = {"starttls": " over STARTTLS", "tls": " over TLS", "none": " without TLS"}[self._entry.security]
        return f"answers{protected}{' and accepts the password' if self._entry.user else ''}"

    def _refusal(self, code: int, what: str) -> str:
        """The reason for a permanent reply; a temporary one (greylisting) is retried without counting an attempt."""
        if code in _PERMANENT:
            return f"{self._entry.place} refuses {what} (reply {code}): see the log of the mail server"
        raise PeerBroke(f"{self._entry.place} does not accept {what} now (reply {code})")

    @contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        """A session that is ready for a message. Raises PeerError."""
        entry = self._entry
        password = read_secret(entry.password_file) or ""
        context = None if entry.security == "none" else secure_context(None, entry.authority)
        with ExitStack() as stack:
            try:
                smtp = stack.enter_context(closing(self._connected(context)))
                if context and entry.security == "starttls":
                    smtp.starttls(context=context)
                if entry.user:
                    smtp.login(entry.user, password)
            except smtplib.SMTPAuthenticationError as error:
                raise PeerError(
                    f"{entry.place} refuses the login (reply {error.smtp_code}): check `user` and password_file"
                ) from None
            except smtplib.SMTPNotSupportedError:
                raise PeerError(
                    f"{entry.place} does not offer what `security` and `user` require: check both, and `port`"
                ) from None
            except SessionLimit as error:
                raise PeerError(f"no SMTP session with {entry.place}: {error}") from None
            except smtplib.SMTPServerDisconnected:
                raise PeerError(f"{entry.place} closes the connection: check `port` and `security`") from None
            except smtplib.SMTPResponseException as error:
                raise PeerError(f"no SMTP session with {entry.place}: it {_answer(error.smtp_code)}") from None
            except smtplib.SMTPException:
                raise PeerError(f"no SMTP session with {entry.place}: its replies are not those of SMTP") from None
            except OSError as error:
                raise PeerError(f"no SMTP session with {entry.place} ({tls_cause(error)})") from None
            yield smtp
            with suppress(smtplib.SMTPException, OSError):
                smtp.quit()

    def _connected(self, context: ssl.SSLContext | None) -> smtplib.SMTP:
        entry, name = self._entry, self._entry.sender.rpartition("@")[2]
        first = context if entry.security == "tls" else None
        return BoundedSmtp(entry.host, entry.smtp_port, name, timeout_s=self._timeout_s, context=first)


def _answer(code: int) -> str:
    """What a server did in place of accepting a session; smtplib has code -1 for a reply without one."""
    if code < 0:
        return "sends no reply of SMTP: check `port`"
    return f"refuses one now (reply {code}): see the log of the mail server"


def text_of(message: Message, entry: Email) -> EmailMessage:
    """The e-mail; its Message-ID is equal at each try (RFC 5322, 3.6.4)."""
    mail = EmailMessage()
    mail["From"], mail["To"] = entry.sender, ", ".join(entry.recipients)
    mail["Subject"] = f"{message.title}: study {message.study}"
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.id}@{entry.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic reply
    lines = [f"Study {message.study}, {message.at:%Y-%m-%d %H:%M:%S} UTC", *message.lines()]
    if entry.identifiers:
        subject = message.subject
        lines += [
            plain(f"Study Instance UID: {subject.study_uid}"),
            plain(f"Accession number: {subject.accession_number}"),
            plain(f"Patient ID: {subject.patient_id}"),
        ]
    mail.set_content("\n".join(lines) + "\n")
    return mail
