"""The front's settings, and which combinations are refused."""

from __future__ import annotations

import ipaddress
import ssl

import msgspec

from tailrace.schemas.errors import ConfigError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8123


class FrontSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the front listens and what it allows.

    Args:
        host: Address to listen on. Anything but loopback needs a `token`.
        port: TCP port; 0 takes a free one. `None` takes 8123, or a free one where 8123 is taken.
        token: The password of user `default`; also accepted as `X-ClickHouse-Key` and as a bearer token. Empty:
            whoever reaches the port may ask, and only requests that name a loopback host are answered.
        tls_cert: PEM of the certificate to answer HTTPS with, and of those between it and its authority. The port then speaks
            HTTPS only; the other commands on this machine get a plain one of their own, on loopback.
        tls_key: PEM of its key; may stand in the same file.
        allowed_hosts: Further names that a `Host` header may hold where there is no token, without port.
        allowed_origins: Web origins (`https://grafana.example`) whose pages may send requests from a browser.
        max_concurrent: Statements that run at the same time; each has a thread.
        queue_seconds: How long a request waits for its turn before it is answered with code 202.
        max_body_bytes: Largest request body, decompressed. It is spooled to disk, not held in memory.
        max_result_bytes: Largest result, as ClickHouse counts `max_result_bytes`; results are spooled to disk too.
        session_seconds: How long an idle `session_id` lives when the request does not say.
        max_sessions: Sessions that may live at the same time.
        stop_seconds: How long `stop` waits for statements that are running.
        allow_external: Let callers use what reads or writes outside the database (`file()`, `url()`, `s3()`,
            foreign table engines, `INTO OUTFILE` …), with the rights of this process.
    """

    host: str = DEFAULT_HOST
    port: int | None = None
    token: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_concurrent: int = 8
    queue_seconds: float = 10.0
    max_body_bytes: int = 2 << 30
    max_result_bytes: int = 8 << 30
    session_seconds: float = 60.0
    max_sessions: int = 256
    stop_seconds: float = 10.0
    allow_external: bool = False

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            raise ConfigError(
                f"--http {self.host}: listening beyond loopback without a token would let anybody on the network read "
                "and change the database; set a token, or listen on 127.0.0.1"
            )
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ConfigError(f"--http: {self.port} is not a TCP port")
        if self.max_concurrent < 1:
            raise ConfigError("the front needs max_concurrent of at least 1")
        if self.tls_key and not self.tls_cert:
            raise ConfigError("--http-tls-key is given without --http-tls-cert")

    def __repr__(self) -> str:
        return f"FrontSettings(host={self.host!r}, port={self.port!r})"  # never the token

    def tls(self) -> ssl.SSLContext | None:
        """What to speak HTTPS with; `None` for plain HTTP.

        Raises:
            ConfigError: A file cannot be read, or they do not belong together.
        """
        if not self.tls_cert:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key or None, lambda: "")
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                f"--http-tls-cert {self.tls_cert}: cannot answer HTTPS with it and its key {self.tls_key or '(in the same file)'}: {exc}"
            ) from exc
        return context


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine; names other than `localhost` count as not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
