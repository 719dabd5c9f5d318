"""The whole pipeline where every connection is encrypted and every side asks who comes, and what is said when one says no."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import signal
import stat
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from support.cli import start
from support.kafka import KafkaMissing, free_ports, wait_until
from support.required import required
from support.secure_kafka import (
    PASSWORD,
    Operation,
    Resource,
    SecureKafka,
    TokenEndpoint,
    unsigned_token,
)
from tailrace import FileLogger, Trace
from tailrace.cli.app import run
from tailrace.schemas.clickhouse.connection import read_front
from tailrace.schemas.errors import ConfigError, KafkaRefused, KafkaUnavailable
from tailrace.schemas.kafka import KafkaConnection, login, translate_kafka
from tailrace.schemas.kafka_token import ClientCredentials

pytestmark = pytest.mark.kafka

SHIPPER_ID = "shop-1"
TOKEN = "front-" + secrets.token_hex(8)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker at which `shipper` may ship, `ingestor` may ingest, and `reader` may do all but write the lines."""
    secure = SecureKafka(tmp_path_factory.mktemp("secure-kafka"), ("shipper", "ingestor", "reader", "nobody"))
    with required(KafkaMissing):
        secure.start()
    topic, progress, transactional = Resource.TOPIC, "tailrace-checkpoints", Resource.TRANSACTIONAL_ID
    read, write, describe = Operation.READ, Operation.WRITE, Operation.DESCRIBE
    secure.broker.create_topic("tailrace", 2)
    secure.broker.create_topic(progress, 1, {"cleanup.policy": "compact"})
    secure.allow("User:shipper", topic, "tailrace", write, describe)
    secure.allow("User:reader", topic, "tailrace", read, describe)
    secure.allow("User:ingestor", topic, "tailrace", read, describe)
    secure.allow("User:ingestor", Resource.GROUP, "tailrace", read, describe)
    for user in ("shipper", "reader"):
        secure.allow(f"User:{user}", topic, progress, read, write, describe)
        secure.allow(f"User:{user}", transactional, SHIPPER_ID, write, describe)
    yield secure
    secure.stop()


@dataclass
class Store:
    """`tailrace up` behind HTTPS, with a token."""

    dsn: str
    environment: dict[str, str]
    ca_file: str
    metrics: str


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An embedded database whose HTTP interface speaks HTTPS; its own pipeline has nothing to do."""
    folder = tmp_path_factory.mktemp("store")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "front.pem"))
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "nothing").mkdir()
    port, metrics = free_ports(2)
    up = start(
        *("up", folder / "nothing", "--clickhouse", f"chdb://{folder}/db"),
        *("--http", f"127.0.0.1:{port}", "--http-tls-cert", folder / "front.pem"),
        *("--metrics-address", f"127.0.0.1:{metrics}"),
        environment={"TAILRACE_HTTP_TOKEN_FILE": str(folder / "token")},
    )
    try:
        wait_until(lambda: read_front(str(folder / "db")), "tailrace up", 60)
        dsn = f"clickhouse://default@localhost:{port}/tailrace?secure=true&ca_cert={folder}/ca.pem"
        password = {"TAILRACE_CLICKHOUSE_PASSWORD_FILE": str(folder / "token")}
        yield Store(dsn, password, f"{folder}/ca.pem", f"http://127.0.0.1:{metrics}/metrics")
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0


@pytest.fixture
def tailrace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process: exit code, what it printed, and what it said."""
    before = signal.getsignal(signal.SIGTERM)

    def command(*arguments: object, **environment: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield command
    signal.signal(signal.SIGTERM, before)


def test_a_line_travels_encrypted_from_the_client_to_the_slice(
    kafka: SecureKafka, store: Store, tmp_path: Path, tailrace
) -> None:
    """What the client wrote is found by a slice, once, when Kafka asks for SCRAM and certificates and ClickHouse is HTTPS."""
    logger = FileLogger(tmp_path / "shop.log", project_id="shop")
    for number in range(50):
        trace = Trace(logger=logger, trace_id=None)
        trace.info("a request")
        trace.tag([{"name": "client", "value": ("even", "odd")[number % 2], "type": "label"}])
    logger.close()
    assert stat.S_IMODE((tmp_path / "shop.log").stat().st_mode) == 0o640
    shipper = kafka.password_login("SCRAM-SHA-512", "shipper")
    code, _, error = tailrace("ship", tmp_path, "--shipper-id", SHIPPER_ID, "--once", **shipper)
    assert (code, error) == (0, "")
    ingestor = kafka.certificate_login("ingestor") | store.environment
    code, out, error = tailrace("ingest", "--once", "--clickhouse", store.dsn, "--format", "json", **ingestor)
    assert (code, error, json.loads(out)["rows"]) == (0, "", 100)
    code, out, error = tailrace(
        *("slice", "client==odd", "--clickhouse", store.dsn, "--format", "json"), **store.environment
    )
    assert (code, error) == (0, "")
    assert json.loads(out)["traces"] == 25


@pytest.mark.parametrize(
    "mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"]
)
def test_every_way_to_log_in(kafka: SecureKafka, mechanism: str) -> None:
    """Each mechanism that can be chosen logs in."""
    if mechanism == "certificate":
        environment = kafka.certificate_login("shipper")
    elif mechanism == "OAUTHBEARER":
        environment = kafka.token_login("shipper")
    else:
        environment = kafka.password_login(mechanism, "shipper")
    asyncio.run(login(KafkaConnection.from_environ(environment["TAILRACE_KAFKA"], environment)))


def wrong(kafka: SecureKafka, case: str) -> dict[str, str]:
    """How to log in, with one thing wrong about it."""
    shipper = kafka.password_login("SCRAM-SHA-256", "shipper")
    if case == "authority":
        return shipper | {"TAILRACE_KAFKA_CA_FILE": kafka.other_ca_file}
    if case == "name":
        return shipper | {"TAILRACE_KAFKA": kafka.sasl.replace("localhost", "127.0.0.1")}
    if case == "no certificate":
        mutual = kafka.certificate_login("shipper")
        return {name: value for name, value in mutual.items() if "CERT" not in name and "KEY" not in name}
    if case == "user":
        return kafka.password_login("PLAIN", "mallory")
    if case == "password":
        return kafka.password_login("SCRAM-SHA-512", "shipper", "a guess")
    if case == "token":
        forged = {"TAILRACE_KAFKA_TOKEN_FILE": "", "TAILRACE_KAFKA_TOKEN": "no.token."}
        return kafka.token_login("shipper") | forged
    assert case == "mechanism"
    return shipper | {"TAILRACE_KAFKA_SASL_MECHANISM": "OAUTHBEARER", "TAILRACE_KAFKA_TOKEN": "x"}


REFUSED = {
    "authority": "its certificate is signed by an authority that we do not trust",
    "name": "its certificate is for another name than the one that we ask for",
    "no certificate": "it asks for a certificate of ours that it can trust",
    "user": "refuses user 'mallory' with PLAIN: wrong user or password",
    "password": "refuses user 'shipper' with SCRAM-SHA-512: wrong user or password",
    "token": "refuses the token's user with OAUTHBEARER: the token is missing or refused",
}


@pytest.mark.parametrize(
    ("command", "case"),
    # The doctor asks as the others do: two cases show how it says so.
    [(command, case) for command in ("ship", "ingest") for case in REFUSED]
    + [("doctor", case) for case in list(REFUSED)[:2]],
)
def test_who_cannot_log_in_is_told_why_in_one_sentence(
    kafka: SecureKafka, store: Store, tmp_path: Path, tailrace, command: str, case: str
) -> None:
    """Whatever is wrong about a login, each command ends with it, at once and in one sentence, without trying for ever."""
    arguments = {
        "ship": ("ship", tmp_path, "--shipper-id", SHIPPER_ID),
        "ingest": ("ingest", "--clickhouse", store.dsn),
        "doctor": ("doctor",),
    }[command]
    code, out, error = tailrace(*arguments, **wrong(kafka, case), **store.environment)
    said = complaint(command, out, error)
    assert code == 1
    assert REFUSED[case] in said
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in out + error


def complaint(command: str, out: str, error: str) -> str:
    """What a command says is wrong: the doctor in its table, the others on stderr."""
    if command == "doctor":
        return "\n".join(line for line in out.splitlines() if line.startswith("FAIL"))
    return error


GRANTS = {
    "see the topic": ("ship", "nobody", "user 'nobody' may not use topic tailrace: allow it"),
    "write the topic": ("ship", "reader", "user 'reader' may not use topic tailrace: allow it"),
    "use the id": ("ship as shop-2", "shipper", "user 'shipper' may not use transactional id shop-2"),
    "read the topic": ("ingest", "nobody", "user 'nobody' may not use topic tailrace: allow it"),
    "use the group": ("ingest", "reader", "user 'reader' may not use consumer group tailrace: allow it"),
    "see the topic, doctor": ("doctor", "nobody", "user 'nobody' may not use topic tailrace: allow it"),
    "use the group, doctor": ("doctor", "shipper", "user 'shipper' may not use consumer group"),
}


@pytest.mark.parametrize("case", GRANTS)
def test_a_missing_grant_is_named(
    kafka: SecureKafka, store: Store, tmp_path: Path, tailrace, case: str
) -> None:
    """Who is let in and lacks a grant is told which, and the command ends; the doctor says it as a failed check."""
    command, user, sentence = GRANTS[case]
    (tmp_path / "a.log").write_text('{"kind":"text"}\n')
    arguments: tuple[object, ...] = {
        "ship": ("ship", tmp_path, "--shipper-id", SHIPPER_ID),
        "ship as shop-2": ("ship", tmp_path, "--shipper-id", "shop-2"),
        "ingest": ("ingest", "--clickhouse", store.dsn),
        "doctor": ("doctor",),
    }[command]
    environment = kafka.password_login("SCRAM-SHA-256", user) | store.environment
    code, out, error = tailrace(*arguments, **environment)
    assert code == 1
    assert sentence in (out if command == "doctor" else error)
    assert command == "doctor" or len(error.strip().splitlines()) == 1
    assert "Traceback" not in out + error


CLICKHOUSE = {
    "authority": "its certificate cannot be trusted",
    "user": "Authentication failed",
    "password": "Authentication failed",
}


@pytest.mark.parametrize("case", CLICKHOUSE)
@pytest.mark.parametrize("command", ["ingest", "slice", "doctor"])
def test_who_cannot_log_in_to_clickhouse_is_told_why(
    kafka: SecureKafka, store: Store, tailrace, command: str, case: str
) -> None:
    """A wrong authority, user or password of ClickHouse ends each command in one sentence; it is not taken for an outage."""
    dsn, environment = store.dsn, dict(store.environment)
    if case == "authority":
        dsn = dsn.replace(store.ca_file, kafka.ca_file)
    elif case == "user":
        dsn = dsn.replace("default@", "mallory@")
    else:
        environment = {"TAILRACE_CLICKHOUSE_PASSWORD": "a guess"}
    arguments = {"ingest": ("ingest",), "slice": ("slice", ""), "doctor": ("doctor",)}[command]
    if command == "ingest":
        environment |= kafka.password_login("PLAIN", "ingestor")
    code, out, error = tailrace(*arguments, "--clickhouse", dsn, **environment)
    said = complaint(command, out, error)
    assert code == 1
    assert CLICKHOUSE[case] in said
    assert len(said.strip().splitlines()) == 1


def test_commands_on_the_same_machine_need_no_certificate(store: Store, tailrace) -> None:
    """Who may read the database's directory reaches its process over loopback, whatever name its certificate has."""
    directory = Path(store.ca_file).parent / "db"
    code, out, error = tailrace(
        "slice", "client==absent", "--clickhouse", f"chdb://{directory}", "--format", "json"
    )
    assert (code, error) == (0, "")
    assert json.loads(out)


def test_a_login_that_works_shows_no_secret_either(
    kafka: SecureKafka, store: Store, tailrace, caplog: pytest.LogCaptureFixture
) -> None:
    """With everything told that there is to tell, neither Kafka's password nor ClickHouse's is in the log, nor in the metrics."""
    environment = kafka.password_login("PLAIN", "ingestor") | store.environment
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}
    try:
        code, out, error = tailrace("-vv", "ingest", "--once", "--clickhouse", store.dsn, **environment)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    assert code == 0
    assert "aiokafka" in caplog.text
    with urllib.request.urlopen(store.metrics, timeout=10) as answer:
        said = out + error + caplog.text + answer.read().decode()
    for hidden in (PASSWORD, TOKEN):
        assert hidden not in said
        assert base64.b64encode(hidden.encode()).decode().rstrip("=") not in said


def test_a_renewed_token_is_used_at_the_next_login(kafka: SecureKafka, tmp_path: Path) -> None:
    """The token is read from its file at every login; without one in it the login fails and names the file."""
    environment = kafka.token_login("shipper") | {"TAILRACE_KAFKA_TOKEN_FILE": str(tmp_path / "token")}
    connection = KafkaConnection.from_environ(kafka.sasl, environment)
    with pytest.raises(Exception, match="token") as caught:
        asyncio.run(login(connection))
    assert str(tmp_path / "token") in str(translate_kafka(caught.value, connection))
    (tmp_path / "token").write_text(unsigned_token("shipper"))
    asyncio.run(login(connection))


def test_tokens_of_an_endpoint(
    kafka: SecureKafka, tmp_path: Path, tailrace, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines are shipped with a token that was asked for with the client's credentials, for the scope that was set, without
    showing the secret."""
    (tmp_path / "a.log").write_text('{"kind":"text"}\n')
    with TokenEndpoint(kafka.authority) as endpoint:
        environment = kafka.endpoint_login(endpoint) | {"TAILRACE_KAFKA_TOKEN_SCOPE": "kafka logs"}
        ship = ("-vv", "ship", tmp_path, "--shipper-id", SHIPPER_ID, "--once", "--format", "json")
        code, out, error = tailrace(*ship, **environment)
    assert code == 0 and json.loads(out)["lines"] == 1
    assert endpoint.asked
    for form in endpoint.asked:
        assert form == {"grant_type": ["client_credentials"], "scope": ["kafka logs"]}
    said = out + error + caplog.text
    assert PASSWORD not in said
    assert base64.b64encode(f"shipper:{PASSWORD}".encode()).decode().rstrip("=")[8:] not in said


NO_TOKEN = {
    "secret": ("refuses client 'shipper': invalid_client: wrong secret", KafkaRefused),
    "authority": ("its certificate cannot be trusted", KafkaRefused),
    "no token": ("gives no token", KafkaRefused),
    "elsewhere": ("refuses client 'shipper': 302", KafkaRefused),
    "no reason": ("refuses client 'shipper': 403", KafkaRefused),
    "busy": ("answers 503", KafkaUnavailable),
    "away": ("does not answer", KafkaUnavailable),
}


@pytest.mark.parametrize("case", NO_TOKEN)
def test_an_endpoint_that_gives_no_token(kafka: SecureKafka, case: str) -> None:
    """A refusal is told in one sentence and is final; an endpoint that is away or busy is asked again, like a broker; the
    secret goes to no other address."""
    answers = {
        "no token": (200, b'{"token_type":"Bearer"}'),
        "elsewhere": (302, b""),
        "no reason": (403, b"<html>"),
        "busy": (503, b""),
    }
    sentence, kind = NO_TOKEN[case]
    with TokenEndpoint(kafka.authority) as endpoint:
        endpoint.answer = answers.get(case)
        environment = kafka.endpoint_login(endpoint, "a guess" if case == "secret" else PASSWORD)
        if case == "authority":
            environment["TAILRACE_KAFKA_TOKEN_CA_FILE"] = kafka.other_ca_file
        if case == "away":
            environment["TAILRACE_KAFKA_TOKEN_URL"] = f"https://localhost:{free_ports(1)[0]}/token"
        connection = KafkaConnection.from_environ(kafka.sasl, environment)
        with pytest.raises(Exception) as caught:
            asyncio.run(login(connection))
    error = translate_kafka(caught.value, connection)
    assert isinstance(error, kind)
    assert sentence in str(error) and "token endpoint at localhost:" in str(error)
    assert len(str(error).splitlines()) == 1 and PASSWORD not in str(error)
    assert len(endpoint.asked) <= 1


def test_a_token_is_asked_for_anew_before_it_expires(kafka: SecureKafka) -> None:
    """One token serves many logins, at the same time too, and no longer than four fifths of its life."""
    clock = [0.0]

    async def logins(endpoint: TokenEndpoint) -> list[int]:
        source = ClientCredentials(endpoint.url, "a+b: c", PASSWORD, "", kafka.ca_file, lambda: clock[0])
        asked = []
        for clock[0] in (0.0, 79.0, 81.0):
            assert len(set(await asyncio.gather(*(source.token() for _ in range(5))))) == 1
            asked.append(len(endpoint.asked))
        return asked

    with TokenEndpoint(kafka.authority) as endpoint:
        endpoint.lifetime = 100
        assert asyncio.run(logins(endpoint)) == [1, 1, 2]


SASL_TOKEN = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "OAUTHBEARER"}
CLIENT = {"CLIENT_ID": "c", "CLIENT_SECRET": "s"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "needs TAILRACE_KAFKA_USERNAME and TAILRACE_KAFKA_PASSWORD"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "OAUTHBEARER"}, "TAILRACE_KAFKA_TOKEN_FILE"),
        (SASL_TOKEN | {"TOKEN_URL": "https://a/t"}, "needs TAILRACE_KAFKA_CLIENT_ID"),
        (SASL_TOKEN | CLIENT | {"TOKEN_URL": "http://a/t"}, "must be https"),
        (SASL_TOKEN | CLIENT | {"TOKEN_URL": "https://a/t", "TOKEN": "x"}, "set one of"),
        (SASL_TOKEN | CLIENT | {"TOKEN": "x"}, "which is not set"),
        (CLIENT | {"TOKEN_URL": "https://a/t"}, "is not SASL_SSL or SASL_PLAINTEXT"),
        ({"PASSWORD": "x"}, "is not SASL_SSL or SASL_PLAINTEXT"),
        ({"TOKEN": "x"}, "is not SASL_SSL or SASL_PLAINTEXT"),
        ({"CA_FILE": "/ca.pem"}, "is not SSL or SASL_SSL"),
        ({"SECURITY_PROTOCOL": "SSL", "CERT_FILE": "/c.pem"}, "needs both"),
        ({"SECURITY_PROTOCOL": "TLS"}, "security_protocol"),
        ({"PASSWORD_FILE": "/nowhere/password"}, "cannot read /nowhere/password"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, str], message: str) -> None:
    """Before anything connects; a password without SASL would otherwise be ignored, and TLS files without TLS too."""
    environment = {f"TAILRACE_KAFKA_{name}": value for name, value in settings.items()}
    with pytest.raises(ConfigError, match=message):
        KafkaConnection.from_environ("localhost:9092", environment)
