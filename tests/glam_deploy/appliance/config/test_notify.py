"""[[notify]]: what is refused, and how it is named."""

from pathlib import Path

import pytest

from glam_deploy.appliance.config import Config, parse_config
from glam_deploy.errors import UsageError

HEAD = 'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n'
WEBHOOK = 'name = "ris"\nkind = "webhook"\nurl = "https://ris.example/hook"\nsecret_file = "hook.secret"'
MAIL = 'name = "mail"\nkind = "email"\nhost = "mail.example"\nsender = "a@b.example"\nrecipients = ["c@d.example"]'
HL7 = 'name = "hl7"\nkind = "hl7"\nhost = "ris.example"\nport = 2575'
FHIR = 'name = "fhir"\nkind = "fhir"\nurl = "https://fhir.example/r4"'


def config(folder: Path, *entries: str, more: str = "") -> Config:
    return parse_config(HEAD + "".join(f"[[notify]]\n{entry}\n" for entry in entries) + more, folder=folder)


def test_paths_start_at_the_folder_of_the_file_and_defaults_are_restrictive(tmp_path: Path) -> None:
    made = config(tmp_path, WEBHOOK, MAIL, HL7 + "\nplain = true", FHIR)
    webhook, mail, _, _ = made.notify
    assert webhook.kind == "webhook"
    assert webhook.secret_file == tmp_path / "hook.secret"
    assert not webhook.identifiers
    assert mail.kind == "email"
    assert (mail.security, mail.smtp_port, mail.identifiers) == ("starttls", 587, False)
    assert webhook.events == ("delivered", "failed", "refused_views", "superseded")
    assert Config.model_validate(made.model_dump()) == made
    assert config(tmp_path).notify == ()


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ('name = "a"', "notify.0: needs `kind`"),
        ('name = "a"\nkind = "sms"', "notify.0: has an unknown `kind`"),
        (WEBHOOK.replace("https", "http"), "notify.0.webhook.url: is http, which sends results unencrypted"),
        (WEBHOOK.replace("https://", "https://u:p@"), "notify.0.webhook.url: is not a URL of a service"),
        (WEBHOOK.replace("https://ris.example/hook", "ris"), "notify.0.webhook.url: is not a URL of a service"),
        (WEBHOOK + '\nevents = ["read"]', "notify.0.webhook.events.0"),
        (WEBHOOK + "\nevents = []", "notify.0.webhook.events"),
        (WEBHOOK + '\nevents = ["failed", "failed"]', "names an event twice"),
        (WEBHOOK.replace("secret_file", "secret"), "notify.0.webhook.secret_file: is missing"),
        (HL7, "notify.0.hl7: messages hold patients' names, and the connection has no TLS"),
        (HL7 + '\nplain = true\nauthority = "ca.crt"', "exclude each other"),
        (HL7 + '\nplain = true\nsending_facility = "A|B"', "expected 1 to 20 ASCII letters"),
        (MAIL + '\nuser = "u"', "give both user and password_file"),
        (MAIL + '\nsecurity = "none"\nidentifiers = true', "unencrypted"),
        (MAIL.replace("a@b.example", "a@b\\r\\nBcc: x@y.example"), "notify.0.email.sender: expected an e-mail address"),
        (MAIL.replace('["c@d.example"]', "[]"), "notify.0.email.recipients"),
        (FHIR + '\nuser = "u"', "give user and password_file, or token_file"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        config(tmp_path, entry)
    assert named in str(caught.value)


def test_names_differ_from_those_of_targets(tmp_path: Path) -> None:
    target = '[[targets]]\nname = "ris"\nae_title = "A"\nhost = "b"\nport = 104\n'
    with pytest.raises(UsageError, match="share a name"):
        config(tmp_path, WEBHOOK, more=target)
