"""The token with which OAUTHBEARER logs in."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError

_ASK_SECONDS = 10.0
_ANSWER_BYTES = 1 << 20
_FRESH = 0.8
"""A token is used for this part of its life, so that none expires on its way to the broker."""


class NoToken(AuthenticationFailedError):  # type: ignore[misc]
    """There is none to log in with; the message says why."""


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no type information
    """Gives the token at each login.

    Args:
        token: The token itself; used where no file is named.
        path: A file that holds it. It is read every time, so a token that somebody renews there is used from the next login on.
    """

    def __init__(self, token: str, path: str) -> None:
        self._token = token
        self._path = path

    async def token(self) -> str:
        """The token as it is now.

        Raises:
            NoToken: There is no token in the file, or no file.
        """
        if not self._path:
            return self._token
        try:
            found = (await asyncio.to_thread(Path(self._path).read_text)).strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = getattr(exc, "strerror", None) or "it is no text"
            raise NoToken(f"TAILRACE_KAFKA_TOKEN_FILE: {self._path}: {reason}") from exc
        if not found:
            raise NoToken(f"TAILRACE_KAFKA_TOKEN_FILE: {self._path} is empty")
        return found


class _Answer(msgspec.Struct):
    access_token: str
    expires_in: float = 0.0


class _Refusal(msgspec.Struct):
    error: str = ""
    error_description: str = ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """The secret is for the address that was configured, and no other."""


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no type information
    """Asks an endpoint for tokens, with the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4).

    A token serves the logins of its first four fifths of life; one whose life the endpoint does not tell, one login.

    Args:
        url: The endpoint.
        client_id: Who asks.
        client_secret: Proves it; sent as HTTP Basic authentication, in the body nowhere.
        scope: What is asked for; '' for what the endpoint gives by itself.
        ca_file: PEM of the authority of its certificate; '' for the system's.
        monotonic: Seconds.

    Raises:
        OSError: The authority cannot be read; `ssl.SSLError` where it is none.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        scope: str = "",
        ca_file: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._client_id = client_id
        self._credentials = base64.b64encode(
            f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        ).decode()
        self._scope = scope
        self._monotonic = monotonic
        context = ssl.create_default_context(cafile=ca_file or None)
        # No proxy of the environment sees the secret either.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )
        self._token = ""
        self._until = float("-inf")
        self._asking = asyncio.Lock()

    async def token(self) -> str:
        """A token that is valid now.

        Raises:
            NoToken: The endpoint refuses us, or gives something else.
            KafkaConnectionError: It does not answer now.
        """
        async with self._asking:
            asked = self._monotonic()
            if asked >= self._until:
                found = await asyncio.to_thread(self._ask)
                self._token, self._until = found.access_token, asked + _FRESH * found.expires_in
            return self._token

    def _ask(self) -> _Answer:
        body = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        request = urllib.request.Request(  # noqa: S310 - https, or loopback: KafkaConnection sees to that
            self._url,
            urlencode(body).encode(),
            {"Authorization": f"Basic {self._credentials}", "Accept": "application/json"},
        )
        where = f"the token endpoint at {urlsplit(self._url).netloc.rpartition('@')[2]}"
        try:
            with self._opener.open(request, timeout=_ASK_SECONDS) as answer:
                raw = answer.read(_ANSWER_BYTES)
        except HTTPError as exc:
            if exc.code >= 500 or exc.code == 429:
                raise KafkaConnectionError(f"{where} answers {exc.code}") from exc
            raise NoToken(f"{where} refuses client {self._client_id!r}: {_reason(exc)}") from exc
        except (OSError, HTTPException) as exc:
            cause = getattr(exc, "reason", exc)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise NoToken(
                    f"{where}: its certificate cannot be trusted ({cause.verify_message}); name the PEM file of its authority in "
                    "TAILRACE_KAFKA_TOKEN_CA_FILE"
                ) from None
            raise KafkaConnectionError(f"{where} does not answer: {cause}") from exc
        try:
            return msgspec.json.decode(raw, type=_Answer)
        except msgspec.DecodeError as exc:
            raise NoToken(f"{where} gives no token") from exc


def _reason(refused: HTTPError) -> str:
    """What the endpoint says is wrong, without anything else that it may say."""
    try:
        said = msgspec.json.decode(refused.read(_ANSWER_BYTES), type=_Refusal)
    except (msgspec.DecodeError, OSError, HTTPException):
        return str(refused.code)
    return ": ".join(part[:200] for part in (said.error, said.error_description) if part) or str(refused.code)
