"""The token with which OAUTHBEARER logs in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError


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
            AuthenticationFailedError: There is no token in the file, or no file.
        """
        if not self._path:
            return self._token
        try:
            found = (await asyncio.to_thread(Path(self._path).read_text)).strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = getattr(exc, "strerror", None) or "it is no text"
            raise AuthenticationFailedError(f"TAILRACE_KAFKA_TOKEN_FILE: {self._path}: {reason}") from exc
        if not found:
            raise AuthenticationFailedError(f"TAILRACE_KAFKA_TOKEN_FILE: {self._path} is empty")
        return found
