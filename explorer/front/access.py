"""Whose request it is, and whether a browser was tricked into sending it. Pure: takes headers, gives an answer."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from tailrace.explorer.front.refusal import Refusal
from tailrace.explorer.front.settings import FrontSettings, is_loopback

USER = "default"


def check_origin(headers: Mapping[str, str], settings: FrontSettings) -> None:
    """Refuses what a web page could send that is open in a browser on this machine.

    A page may send a POST anywhere without asking (its answer stays hidden, but the statement would run), which shows
    in `Origin` and `Sec-Fetch-Site`. A page may also have its own host name resolve to 127.0.0.1, and then read
    answers too; that shows in `Host`. With a token the last is harmless: the page does not know it.

    Raises:
        Refusal: With status 403.
    """
    origin = headers.get("Origin")
    if origin is not None and origin not in settings.allowed_origins:
        raise Refusal(497, f"requests from the web origin {origin} are not allowed; see allowed_origins", 403)
    if origin is None and headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refusal(497, "requests from web pages of other origins are not allowed", 403)
    if settings.token:
        return
    host = _hostname(headers.get("Host", ""))
    if not (host == "" or is_loopback(host) or host == settings.host or host in settings.allowed_hosts):
        raise Refusal(497, f"the host name {host!r} is not one of this server; see allowed_hosts", 403)


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return "?"


def check_credentials(
    headers: Mapping[str, str], parameters: Mapping[str, str], settings: FrontSettings
) -> None:
    """Refuses a request without the token, where one is set, and users that do not exist.

    Raises:
        Refusal: Status 401 where no credentials came, 403 where wrong ones did.
    """
    user, password = _credentials(headers, parameters)
    if user not in (None, "", USER):
        raise _failed(user or "", 403)
    if not settings.token:
        return
    if password is None:
        raise _failed(user or USER, 401)
    if not hmac.compare_digest(password.encode(), settings.token.encode()):
        raise _failed(user or USER, 403)


def _failed(user: str, status: int) -> Refusal:
    return Refusal(
        516,
        f"{user}: Authentication failed: password is incorrect, or there is no user with such name.",
        status,
    )


def _credentials(headers: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[str | None, str | None]:
    """User and password, from where ClickHouse takes them: its own headers, `Authorization`, or the URL."""
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        return headers.get("X-ClickHouse-User"), headers.get("X-ClickHouse-Key")
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return None, value.strip()
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Refusal(516, "the Authorization header cannot be read", 401) from None
        return user, password
    return parameters.get("user"), parameters.get("password")
