"""How to reach Kafka, and what aiokafka's exceptions mean for us. Shared by the shipper and the ingestor."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from tailrace.schemas.errors import ConfigError, Fenced, KafkaRefused, KafkaUnavailable, TailraceError
from tailrace.schemas.secrets import secret

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_LOGIN_MILLISECONDS = 10_000
_OTHER_NAME = (62, 64)
"""OpenSSL's codes of a certificate for another host name or address."""
_EXPIRED = 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_MESSAGE")
_OUR_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")


class KafkaConnection(msgspec.Struct, frozen=True, kw_only=True):
    """Brokers and credentials. Its `repr` never shows a secret.

    Args:
        brokers: `host:port` of some brokers, comma separated.
        security_protocol: As in Kafka's own `security.protocol`.
        sasl_mechanism: With SASL.
        username: With PLAIN and SCRAM.
        password: With PLAIN and SCRAM; comes from the environment or a file, never from argv.
        token: With OAUTHBEARER.
        token_file: With OAUTHBEARER; read again at every login, so whoever renews the token replaces the file.
        token_url: With OAUTHBEARER; where tokens are asked for with client credentials (OAuth 2.0), anew before one expires.
        client_id: Who asks there.
        client_secret: Proves it.
        token_scope: What is asked for, words apart by spaces; the endpoint's default when empty.
        token_ca_file: PEM of the authority that signed the endpoint's certificate; the system's when empty.
        ca_file: PEM of the authority that signed the brokers' certificates; the system's when empty.
        cert_file: PEM of our certificate, for mutual TLS.
        key_file: PEM of its key.
        key_password: Of an encrypted key.
    """

    brokers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "PLAIN"
    username: str = ""
    password: str = ""
    token: str = ""
    token_file: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    token_scope: str = ""
    token_ca_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password: str = ""

    def __repr__(self) -> str:
        return f"KafkaConnection({self.brokers!r}, {self.security_protocol})"

    @classmethod
    def from_environ(cls, brokers: str, environ: Mapping[str, str]) -> KafkaConnection:
        """Reads `TAILRACE_KAFKA_SECURITY_PROTOCOL`, `…_SASL_MECHANISM`, `…_USERNAME`, `…_PASSWORD` or
        `…_PASSWORD_FILE`, `…_TOKEN` or `…_TOKEN_FILE`, `…_TOKEN_URL`, `…_CLIENT_ID`, `…_CLIENT_SECRET` or
        `…_CLIENT_SECRET_FILE`, `…_TOKEN_SCOPE`, `…_TOKEN_CA_FILE`, `…_CA_FILE`, `…_CERT_FILE`, `…_KEY_FILE`, and
        `…_KEY_PASSWORD` or `…_KEY_PASSWORD_FILE`.

        Raises:
            ConfigError: No brokers, an unknown protocol or mechanism, credentials that do not fit together.
        """

        def setting(name: str, default: str = "") -> str:
            return environ.get(f"TAILRACE_KAFKA_{name}", default)

        try:
            connection = msgspec.convert(
                {
                    "brokers": brokers,
                    "security_protocol": setting("SECURITY_PROTOCOL", "PLAINTEXT"),
                    "sasl_mechanism": setting("SASL_MECHANISM", "PLAIN"),
                    "username": setting("USERNAME"),
                    "password": secret(environ, "TAILRACE_KAFKA_PASSWORD"),
                    "token": setting("TOKEN"),
                    "token_file": setting("TOKEN_FILE"),
                    "token_url": setting("TOKEN_URL"),
                    "client_id": setting("CLIENT_ID"),
                    "client_secret": secret(environ, "TAILRACE_KAFKA_CLIENT_SECRET"),
                    "token_scope": setting("TOKEN_SCOPE"),
                    "token_ca_file": setting("TOKEN_CA_FILE"),
                    "ca_file": setting("CA_FILE"),
                    "cert_file": setting("CERT_FILE"),
                    "key_file": setting("KEY_FILE"),
                    "key_password": secret(environ, "TAILRACE_KAFKA_KEY_PASSWORD"),
                },
                cls,
            )
        except msgspec.ValidationError as exc:
            raise ConfigError(f"Kafka settings (TAILRACE_KAFKA_…): {exc}") from exc
        connection.check()
        return connection

    @property
    def who(self) -> str:
        """As whom we come, for messages: the user's name where we know it."""
        if self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism != "OAUTHBEARER":
                return f"user {self.username!r}"
            return f"client {self.client_id!r}" if self.token_url else "the token's user"
        return "the certificate's user" if self.cert_file else "a user without a name"

    def check(self) -> None:
        """Refuses what cannot work, with the reason.

        Raises:
            ConfigError: See above.
        """
        if not self.brokers.strip():
            raise ConfigError("no Kafka brokers: give --kafka HOST:PORT[,HOST:PORT…] or set TAILRACE_KAFKA")
        for broker in self.brokers.split(","):
            port = broker.strip().rpartition(":")[2]
            if not port.isdigit() or not 0 < int(port) < 65536:
                raise ConfigError(f"Kafka broker {broker.strip()!r} must be HOST:PORT")
        sasl = self.security_protocol.startswith("SASL")
        by_token = self.sasl_mechanism == "OAUTHBEARER"
        if sasl and by_token and not (self.token or self.token_file or self.token_url):
            raise ConfigError(
                "OAUTHBEARER needs a token: name the file that holds it in TAILRACE_KAFKA_TOKEN_FILE (or set TAILRACE_KAFKA_TOKEN), "
                "or the endpoint that gives one in TAILRACE_KAFKA_TOKEN_URL"
            )
        if self.token_url:
            self._check_token_url()
        elif self.client_id:
            raise ConfigError("TAILRACE_KAFKA_CLIENT_ID is for TAILRACE_KAFKA_TOKEN_URL, which is not set")
        if sasl and not by_token and not (self.username and self.password):
            raise ConfigError(
                f"{self.security_protocol} needs TAILRACE_KAFKA_USERNAME and TAILRACE_KAFKA_PASSWORD (or …_PASSWORD_FILE)"
            )
        if (self.password or self.token or self.token_file or self.token_url) and not sasl:
            raise ConfigError(
                f"a Kafka {'password' if self.password else 'token'} is set, but TAILRACE_KAFKA_SECURITY_PROTOCOL is not "
                "SASL_SSL or SASL_PLAINTEXT"
            )
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("mutual TLS needs both TAILRACE_KAFKA_CERT_FILE and TAILRACE_KAFKA_KEY_FILE")
        if (self.ca_file or self.cert_file) and not self.security_protocol.endswith("SSL"):
            raise ConfigError(
                "TLS files are set for Kafka, but TAILRACE_KAFKA_SECURITY_PROTOCOL is not SSL or SASL_SSL"
            )

    def _check_token_url(self) -> None:
        if self.token or self.token_file:
            raise ConfigError("set one of TAILRACE_KAFKA_TOKEN_URL, …_TOKEN_FILE and …_TOKEN")
        if not (self.client_id and self.client_secret):
            raise ConfigError(
                "TAILRACE_KAFKA_TOKEN_URL needs TAILRACE_KAFKA_CLIENT_ID and TAILRACE_KAFKA_CLIENT_SECRET (or …_CLIENT_SECRET_FILE)"
            )
        address = urlsplit(self.token_url)
        if not address.hostname or not (
            address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOOPBACK)
        ):
            raise ConfigError(
                "TAILRACE_KAFKA_TOKEN_URL must be https://…: the client's secret travels there (http:// only on this machine)"
            )

    def client_arguments(self) -> dict[str, Any]:
        """The keyword arguments that every aiokafka client takes.

        Raises:
            ConfigError: A certificate file cannot be read.
        """
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.brokers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            arguments["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                arguments["sasl_oauth_token_provider"] = self._token_provider()
            else:
                arguments |= {
                    "sasl_plain_username": self.username,
                    "sasl_plain_password": self.password,
                }
        if self.security_protocol.endswith("SSL"):
            try:
                context = ssl.create_default_context(cafile=self.ca_file or None)
                if self.cert_file:
                    # Without a password OpenSSL would ask for one on the terminal.
                    context.load_cert_chain(self.cert_file, self.key_file, lambda: self.key_password)
            except (OSError, ssl.SSLError, ValueError) as exc:
                files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
                raise ConfigError(f"cannot use the TLS files for Kafka ({files}): {exc}") from exc
            arguments["ssl_context"] = context
        return arguments

    def _token_provider(self) -> Any:
        from tailrace.schemas.kafka_token import ClientCredentials, TokenProvider

        if not self.token_url:
            return TokenProvider(self.token, self.token_file)
        try:
            return ClientCredentials(
                self.token_url, self.client_id, self.client_secret, self.token_scope, self.token_ca_file
            )
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                f"TAILRACE_KAFKA_TOKEN_CA_FILE: cannot use {self.token_ca_file}: {exc}"
            ) from exc


async def login(connection: KafkaConnection) -> None:
    """Connect to one broker by hand and log in, then hang up: aiokafka's clients say only that they could not connect, not
    that the password is wrong.

    Raises:
        aiokafka.errors.KafkaError: As does `OSError`: `translate_kafka` knows what it means. Where several brokers fail, the
            refusal of one says more than the silence of another.
    """
    from aiokafka import errors as kafka
    from aiokafka.conn import create_conn
    from aiokafka.protocol.metadata import MetadataRequest

    options = connection.client_arguments()
    servers = [broker.strip() for broker in options.pop("bootstrap_servers").split(",") if broker.strip()]
    failure: BaseException | None = None
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            opened = await create_conn(
                host.strip("[]"), int(port), request_timeout_ms=_LOGIN_MILLISECONDS, **options
            )
        except (kafka.KafkaError, OSError) as exc:
            if failure is None or isinstance(translate_kafka(exc, connection), KafkaRefused):
                failure = exc
            continue
        try:
            by_token = connection.sasl_mechanism == "OAUTHBEARER"
            # aiokafka does not look at the answer to a token. A broker that refused it tells nothing of the cluster then.
            if by_token and not (await opened.send(MetadataRequest([]))).brokers:
                raise kafka.AuthenticationFailedError("the broker tells nothing after it")
        except kafka.KafkaConnectionError as exc:
            raise kafka.AuthenticationFailedError("the broker hung up after it") from exc
        finally:
            opened.close()
        return
    raise failure or kafka.KafkaConnectionError(f"no broker in {connection.brokers!r}")


def translate_kafka(exc: BaseException, connection: KafkaConnection) -> TailraceError:
    """Which of our errors an aiokafka exception is.

    Args:
        exc: What aiokafka raised.
        connection: Whose brokers and user are named in the message.
    """
    from aiokafka import errors as kafka

    from tailrace.schemas.kafka_token import NoToken

    if isinstance(exc, TailraceError):
        return exc
    brokers = connection.brokers
    text = _text(exc)
    if isinstance(exc, kafka.ProducerFenced | kafka.InvalidProducerEpoch):
        return Fenced(
            "another process took over under the same id; this one has stopped so that nothing is written twice "
            f"({type(exc).__name__})"
        )
    if (fault := _tls_fault(exc)) is not None:
        return KafkaRefused(f"Kafka at {brokers}: {fault}")
    if (missing := _missing_grant(exc, connection)) is not None:
        return KafkaRefused(f"Kafka at {brokers}: {connection.who} {missing}")
    if isinstance(exc, NoToken):
        return KafkaRefused(f"Kafka at {brokers} asks for a token: {exc.args[0]}")
    if isinstance(exc, kafka.AuthenticationFailedError | kafka.SaslAuthenticationFailed):
        by_token = connection.sasl_mechanism == "OAUTHBEARER"
        cause = "the token is missing or refused" if by_token else "wrong user or password"
        return KafkaRefused(
            f"Kafka at {brokers} refuses {connection.who} with {connection.sasl_mechanism}: {cause} ({text})"
        )
    if isinstance(exc, kafka.UnsupportedSaslMechanismError | kafka.IllegalSaslStateError):
        return KafkaRefused(
            f"Kafka at {brokers} does not offer {connection.sasl_mechanism}; choose another TAILRACE_KAFKA_SASL_MECHANISM ({text})"
        )
    refused = (kafka.InvalidTopicError, kafka.UnsupportedVersionError, kafka.IncompatibleBrokerVersion)
    if isinstance(exc, refused):
        return KafkaRefused(f"Kafka at {brokers} refuses us: {text}")
    passing = (kafka.KafkaConnectionError, kafka.KafkaTimeoutError)
    if isinstance(exc, kafka.KafkaError) and not exc.retriable and not isinstance(exc, passing):
        return KafkaRefused(f"Kafka at {brokers}: {text}")
    hint = ""
    if text.endswith("closed") and connection.security_protocol.endswith("PLAINTEXT"):
        hint = " (if it wants TLS, set TAILRACE_KAFKA_SECURITY_PROTOCOL)"
    elif isinstance(exc, ConnectionResetError) and connection.security_protocol.endswith("SSL"):
        hint = " (does it speak TLS at this port?)"
    return KafkaUnavailable(f"Kafka at {brokers} does not answer: {text}{hint}")


def _text(exc: BaseException) -> str:
    """Its first line, with the name of its class before it."""
    name = type(exc).__name__
    first = (str(exc).splitlines() or [""])[0]
    return first if first.startswith(name) or f"{name}:" in first else f"{name}: {first}".rstrip(": ")


def _missing_grant(exc: BaseException, connection: KafkaConnection) -> str | None:
    """What an administrator has to allow."""
    from aiokafka import errors as kafka

    named = exc.args[0] if exc.args else ""
    each = sorted(map(str, named)) if isinstance(named, set | frozenset | list | tuple) else [str(named)]
    names = ", ".join(name for name in each if " " not in name)  # some raise it with a sentence instead
    if isinstance(exc, kafka.TopicAuthorizationFailedError):
        return (
            f"may not use topic {names or 'of these lines'}: allow it Describe and Write to ship, Describe and Read to ingest; "
            "a shipper needs both on the topic of its progress"
        )
    if isinstance(exc, kafka.TransactionalIdAuthorizationFailed):
        return (
            f"may not use transactional id {names or 'of this shipper'}, which is its --shipper-id: allow it Describe and Write "
            "on that id, or ship with --delivery at-least-once"
        )
    if isinstance(exc, kafka.GroupAuthorizationFailedError):
        return f"may not use consumer group {names or 'of this ingestor'}: allow it Read and Describe on the group"
    if isinstance(exc, kafka.ClusterAuthorizationFailedError):
        return "may not do this to the cluster: allow it IdempotentWrite to ship, Describe for the doctor"
    return None


def _tls_fault(exc: BaseException) -> str | None:
    """What is wrong with the encryption, where that is what failed for good."""
    for each in _chain(exc):
        if isinstance(each, ssl.SSLCertVerificationError):
            reason = each.verify_message.rstrip(".")
            if each.verify_code in _OTHER_NAME:
                return f"its certificate is for another name than the one that we ask for ({reason})"
            if each.verify_code == _EXPIRED:
                return "its certificate has expired"
            return (
                f"its certificate is signed by an authority that we do not trust ({reason}); name the PEM file of the "
                "authority in TAILRACE_KAFKA_CA_FILE"
            )
        if isinstance(each, ssl.SSLError) and each.reason:
            if each.reason in _NO_TLS:
                return f"it speaks no TLS at this port ({each.reason}); check the port and TAILRACE_KAFKA_SECURITY_PROTOCOL"
            if any(word in each.reason for word in _OUR_CERTIFICATE):
                return (
                    f"it asks for a certificate of ours that it can trust ({each.reason}); set TAILRACE_KAFKA_CERT_FILE and "
                    "TAILRACE_KAFKA_KEY_FILE"
                )
    return None


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
