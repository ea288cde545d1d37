"""docs/notifications.md shows the messages that are sent."""

import json
import re
from typing import get_args

import pytest
from support.commands import ROOT
from support.notify import examples

from glam_deploy.appliance.state.notify_events import Event

PAGE = (ROOT / "docs/notifications.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.+?)\n```", PAGE, re.DOTALL)


@pytest.mark.parametrize("kind", ["webhook", "email", "hl7", "fhir report", "fhir study"])
def test_the_example_is_what_is_sent(kind: str) -> None:
    blocks = [text for language, text in BLOCKS if language != "toml"]
    assert blocks.count(examples()[kind].rstrip("\n")) == 1


def test_every_key_of_a_webhook_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE))))
    assert set(json.loads(examples()["webhook"])["data"]) | set(get_args(Event)) <= explained
