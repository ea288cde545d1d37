"""Forms of the pages: read within limits, and only from a page of the same session (CSRF)."""

from urllib.parse import parse_qs

import anyio
from starlette.requests import Request

from glam_deploy.appliance.web.access import Refused
from glam_deploy.appliance.web.context import form_token_matches, visitor_of

MOST_FORM_BYTES = 4096
FORM_SECONDS = 10.0


async def checked_form(request: Request) -> dict[str, str]:
    """The fields of a form from one of our pages. Raises Refused."""
    form, visitor = await read_form(request), visitor_of(request)
    if visitor is None or not form_token_matches(form.get("form_token", ""), visitor):
        raise Refused(403, "form_token", "This form is not from a page of your session: load the page again.")
    return form


async def read_form(request: Request) -> dict[str, str]:
    """The last value of each field, from a body of at most MOST_FORM_BYTES."""
    body = b""
    with anyio.move_on_after(FORM_SECONDS) as deadline:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_FORM_BYTES:
                raise Refused(413, "form_too_large", "This form is too long.")
    if deadline.cancelled_caught:
        raise Refused(408, "idle", "This form did not arrive completely in time.")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}
