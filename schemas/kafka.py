"""How to reach Kafka, and what aiokafka's exceptions mean for us. Shared by the shipper and the ingestor."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tailrace.schemas.errors import ConfigError, Fenced, KafkaRefused, KafkaUnavailable, TailraceError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaConnection(msgspec.Struct, frozen=True, kw_only=True):
    """Brokers and credentials. Its `repr` never shows the password.

    Args:
        brokers: `host:port` of some brokers, comma separated.
        security_protocol: As in Kafka's own `security.protocol`.
        sasl_mechanism: With SASL.
        username: With SASL.
        password: With SASL; comes from the environment or a file, never from argv.
        ca_file: PEM of the authority that signed the brokers' certificates; the system's when empty.
        cert_file: PEM of our certificate, for mutual TLS.
        key_file: PEM of its key.
    """

    brokers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "PLAIN"
    username: str = ""
    password: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def __repr__(self) -> str:
        return f"KafkaConnection({self.brokers!r}, {self.security_protocol})"

    @classmethod
    def from_environ(cls, brokers: str, environ: Mapping[str, str]) -> KafkaConnection:
        """Reads `TAILRACE_KAFKA_SECURITY_PROTOCOL`, `…_SASL_MECHANISM`, `…_USERNAME`, `…_PASSWORD` or
        `…_PASSWORD_FILE`, `…_CA_FILE`, `…_CERT_FILE` and `…_KEY_FILE`.

        Raises:
            ConfigError: No brokers, an unknown protocol or mechanism, credentials that do not fit together.
        """

        def setting(name: str, default: str = "") -> str:
            return environ.get(f"TAILRACE_KAFKA_{name}", default)

        password = setting("PASSWORD")
        if path := setting("PASSWORD_FILE"):
            try:
                password = Path(path).read_text().strip()
            except OSError as exc:
                raise ConfigError(
                    f"TAILRACE_KAFKA_PASSWORD_FILE: cannot read {path}: {exc.strerror}"
                ) from exc
        try:
            connection = msgspec.convert(
                {
                    "brokers": brokers,
                    "security_protocol": setting("SECURITY_PROTOCOL", "PLAINTEXT"),
                    "sasl_mechanism": setting("SASL_MECHANISM", "PLAIN"),
                    "username": setting("USERNAME"),
                    "password": password,
                    "ca_file": setting("CA_FILE"),
                    "cert_file": setting("CERT_FILE"),
                    "key_file": setting("KEY_FILE"),
                },
                cls,
            )
        except msgspec.ValidationError as exc:
            raise ConfigError(f"Kafka settings (TAILRACE_KAFKA_…): {exc}") from exc
        connection.check()
        return connection

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
        if sasl and not (self.username and self.password):
            raise ConfigError(
                f"{self.security_protocol} needs TAILRACE_KAFKA_USERNAME and TAILRACE_KAFKA_PASSWORD (or …_PASSWORD_FILE)"
            )
        if self.password and not sasl:
            raise ConfigError(
                "a Kafka password is set, but TAILRACE_KAFKA_SECURITY_PROTOCOL is not SASL_SSL or SASL_PLAINTEXT"
            )
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("mutual TLS needs both TAILRACE_KAFKA_CERT_FILE and TAILRACE_KAFKA_KEY_FILE")

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
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        if self.security_protocol.endswith("SSL"):
            try:
                context = ssl.create_default_context(cafile=self.ca_file or None)
                if self.cert_file:
                    context.load_cert_chain(self.cert_file, self.key_file)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigError(f"cannot use the TLS files for Kafka: {exc}") from exc
            arguments["ssl_context"] = context
        return arguments


def translate_kafka(exc: BaseException, brokers: str) -> TailraceError:
    """Which of our errors an aiokafka exception is.

    Args:
        exc: What aiokafka raised.
        brokers: Named in the message.
    """
    from aiokafka import errors as kafka

    if isinstance(exc, TailraceError):
        return exc
    name = type(exc).__name__
    first = (str(exc).splitlines() or [""])[0]
    text = first if first.startswith(name) or f"{name}:" in first else f"{name}: {first}".rstrip(": ")
    fenced = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)
    refused = (
        kafka.AuthenticationFailedError,
        kafka.SaslAuthenticationFailed,
        kafka.TopicAuthorizationFailedError,
        kafka.GroupAuthorizationFailedError,
        kafka.ClusterAuthorizationFailedError,
        kafka.TransactionalIdAuthorizationFailed,
        kafka.UnsupportedSaslMechanismError,
        kafka.IllegalSaslStateError,
        kafka.InvalidTopicError,
        kafka.UnsupportedVersionError,
        kafka.IncompatibleBrokerVersion,
    )
    passing = (kafka.KafkaConnectionError, kafka.KafkaTimeoutError)
    if isinstance(exc, fenced):
        return Fenced(
            "another process took over under the same id; this one has stopped so that nothing is written twice "
            f"({type(exc).__name__})"
        )
    if isinstance(exc, refused):
        return KafkaRefused(f"Kafka at {brokers} refuses us: {text}")
    if isinstance(exc, kafka.KafkaError) and not exc.retriable and not isinstance(exc, passing):
        return KafkaRefused(f"Kafka at {brokers}: {text}")
    return KafkaUnavailable(f"Kafka at {brokers} does not answer: {text}")
