"""Login by the token and by OpenID Connect, and logout."""

import re
from collections.abc import Callable
from typing import Literal, TypeVar
from urllib.parse import quote

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from glam_deploy.appliance.web.access import TOKEN_USER, Refused
from glam_deploy.appliance.web.attempts import ATTEMPT_S
from glam_deploy.appliance.web.context import VISITOR, WebContext, client_address, context_of, visitor_of
from glam_deploy.appliance.web.forms import checked_form, read_form
from glam_deploy.appliance.web.oidc import Provider, ProviderError, ProviderUnavailable
from glam_deploy.appliance.web.render import redirect, render

T = TypeVar("T")
COOKIE, ATTEMPT = "glam-session", "glam-login"
"""Cookies: the session, and a login at the provider that is under way."""
RETRY_SECONDS = 10
_PAGE = re.compile(r"/(studies|failures|study/[0-9a-f]{16}(/versions/[0-9]{1,15}/accept)?)?")
"""Pages that a login may lead to: others change something, or are none."""


def login_url(path: str) -> str:
    """The login page that leads to the page `path` afterwards, without the path of `public_url`."""
    page = page_after_login(path)
    return "/login" if page == "/" else f"/login?next={quote(page, safe='/')}"


def page_after_login(path: str) -> str:
    """`path` if it is a page of ours, else the overview; never an address elsewhere."""
    return path if _PAGE.fullmatch(path) else "/"


async def login(request: Request) -> Response:
    """The login form, and its submission."""
    context = context_of(request)
    page = page_after_login(request.query_params.get("next", ""))
    if not context.access.requires_login or (request.method != "POST" and visitor_of(request)):
        return redirect(request, page)
    if request.method != "POST":
        return _login_page(request, page)
    form = await read_form(request)
    page = page_after_login(form.get("next", ""))
    try:
        context.access.check_token(form.get("token", "").strip(), client_address(request))
    except Refused as refused:
        context.audit.write(
            "web_refused", sender=client_address(request), code=refused.code, method="POST", what="login"
        )
        return _login_page(request, page, refused.message, refused.status)
    context.audit.write("web_login", sender=client_address(request), by=TOKEN_USER.name, role=TOKEN_USER.role)
    response = redirect(request, page)
    set_cookie(request, response, COOKIE, context.access.sessions.open(TOKEN_USER), same_site="strict")
    return response


def _login_page(request: Request, page: str, message: str | None = None, status: int = 200) -> Response:
    context = context_of(request)
    provider = context.provider.name if context.provider else None
    values = {"message": message, "next": page, "has_token": context.access.has_token, "provider": provider}
    return render(request, "login.html", values, status)


async def start(request: Request) -> Response:
    """Send the browser to the provider."""
    context, provider = context_of(request), _provider(request)
    attempt, cookie = context.attempts.begin(page_after_login(request.query_params.get("next", "")))
    response = RedirectResponse(await _asked(context, lambda: provider.authorization_url(attempt)), 303)
    # the provider's answer is a request from another site, without strict cookies
    set_cookie(request, response, ATTEMPT, cookie, same_site="lax", max_age=ATTEMPT_S)
    return response


async def callback(request: Request) -> Response:
    """The provider's answer: open a session, or tell why not."""
    context, provider, query = context_of(request), _provider(request), request.query_params
    attempt = context.attempts.resume(request.cookies.get(ATTEMPT, ""), query.get("state", ""))
    if attempt is None:
        raise _stale()
    if "code" not in query:
        error = query.get("error", "")
        given = f" ({error})" if re.fullmatch("[a-z_]{1,40}", error) else ""
        raise Refused(403, "oidc_error", f"The login provider refused the login{given}: log in again.")
    identity = await _asked(context, lambda: provider.identify(query["code"], query.get("iss"), attempt))
    if not context.attempts.complete(attempt):  # another answer with the same state came meanwhile
        raise _stale()
    user = identity.user
    context.audit.write("web_login", sender=client_address(request), by=user.name, role=user.role)
    response = redirect(request, attempt.page)
    secret = context.access.sessions.open(user, id_token=identity.id_token)
    # lax, because the browser follows this redirection as part of the provider's answer
    set_cookie(request, response, COOKIE, secret, same_site="lax")
    delete_cookie(request, response, ATTEMPT)
    return response


def _stale() -> Refused:
    text = "This login was not begun in this browser, too long ago, or has succeeded already: log in again."
    return Refused(400, "oidc_state", text)


def _provider(request: Request) -> Provider:
    provider = context_of(request).provider
    if provider is None:
        raise HTTPException(404)
    return provider


async def _asked(context: WebContext, ask: Callable[[], T]) -> T:
    """What the provider answers, in one of few threads. Raises Refused."""
    if context.logins.available_tokens < 1:
        raise Refused(503, "too_many_logins", "Too many users log in at once: try again.", retry_after=RETRY_SECONDS)
    try:
        return await to_thread.run_sync(ask, limiter=context.logins)
    except ProviderUnavailable as error:
        text = f"The login provider {error} Try again later; the administrator finds the cause by glam-deploy doctor."
        raise Refused(503, error.code, text, retry_after=RETRY_SECONDS) from error
    except ProviderError as error:
        raise Refused(403, error.code, str(error), by=error.name) from error


async def logout(request: Request) -> Response:
    """End the session, here, in the browser, and at the provider."""
    await checked_form(request)
    context, visitor = context_of(request), visitor_of(request)
    session = context.access.sessions.close(request.cookies.get(COOKIE, ""))
    context.audit.write("web_logout", sender=client_address(request), by=visitor.user.name if visitor else None)
    request.scope[VISITOR] = None
    id_token = session and session.id_token
    response: Response = redirect(request, "/login")
    if id_token and context.provider:
        values = {"url": await _logout_url(context, context.provider, id_token), "provider": context.provider.name}
        response = render(request, "logged_out.html", values)
    delete_cookie(request, response, COOKIE)
    return response


async def _logout_url(context: WebContext, provider: Provider, id_token: str) -> str | None:
    """Where the provider's own session ends; None if that cannot be found now."""
    try:
        return await _asked(context, lambda: provider.logout_url(id_token))
    except Refused:
        return None


def set_cookie(
    request: Request,
    response: Response,
    name: str,
    value: str,
    *,
    same_site: Literal["lax", "strict"],
    max_age: int | None = None,
) -> None:
    """Set a cookie of the pages that scripts cannot read; Secure wherever the pages are https."""
    web = context_of(request).config.web
    secure = request.url.scheme == "https" or (web.public_url or "").startswith("https:")
    response.set_cookie(
        name, value, httponly=True, samesite=same_site, secure=secure, path=web.prefix or "/", max_age=max_age
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    """Remove a cookie of the pages from the browser."""
    response.delete_cookie(name, httponly=True, path=context_of(request).config.web.prefix or "/")
