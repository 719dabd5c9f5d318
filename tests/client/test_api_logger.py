"""Lines by HTTP: to a real `tailrace up`, and to servers that are away, refuse, or lie."""

from __future__ import annotations

import http.server
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli import query, report, start
from support.front import FrontProcess
from support.processes import wait_until
from tailrace import APILogger, ConfigError, DeliveryError, Trace
from tailrace.schemas.clickhouse.connection import FrontInfo, read_front
from tailrace.schemas.intake import KEY_HEADER, LINES_PATH

quiet = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")
TOKEN = "correct-horse"


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers what its server says, in turn: (status, body), or None to hang up."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.headers.get(KEY_HEADER), self.headers.get("Authorization"), body))  # type: ignore[attr-defined]
        script = self.server.script  # type: ignore[attr-defined]
        answer = script.pop(0) if script else (200, b'{"lines":1}')
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def scripted(
    *script: tuple[int, bytes] | None, context: ssl.SSLContext | None = None
) -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.daemon_threads = True
    server.script, server.seen = list(script), []  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url(server: http.server.ThreadingHTTPServer, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_address[1]}"


def front_of(database: Path, pid: int) -> FrontInfo:
    """Where the `up` of that process answers, once it does."""

    def found() -> bool:
        info = read_front(str(database))
        return info is not None and info.pid == pid

    wait_until(found, 60)
    info = read_front(str(database))
    assert info is not None
    return info


def test_lines_are_stored_once_through_up(tmp_path: Path) -> None:
    """Property: what `write` was answered for is stored once, although `up` is killed and started again; lines that it
    had taken and not stored are stored by the next run, `--once` included; files that are stored are removed."""
    database, empty = tmp_path / "db", tmp_path / "logs"
    empty.mkdir()
    sent = 0
    environment = {"TAILRACE_HTTP_TOKEN": TOKEN}
    for _ in range(2):
        process = start(
            "up",
            "--clickhouse",
            f"chdb://{database}",
            "--http",
            "127.0.0.1:0",
            empty,
            environment=environment,
        )
        front = front_of(database, process.pid)
        logger = APILogger(f"http://{front.host}:{front.port}", "shop", TOKEN, 30, raise_errors=True)
        for _ in range(60):
            Trace(logger=logger).info(f"line {sent}")
            sent += 1
        process.kill()
        process.wait()
    found = report("up", "--once", "--clickhouse", f"chdb://{database}", empty)
    assert found["lost_bytes"] == {}
    counts = "SELECT count() AS rows, uniqExact(message) AS texts FROM logs"
    assert query(database, counts) == [[{"rows": sent, "texts": sent}]]
    report("up", "--once", "--clickhouse", f"chdb://{database}", empty)
    assert list((database / "tailrace-intake").iterdir()) == []
    assert query(database, counts) == [[{"rows": sent, "texts": sent}]]


def test_the_endpoint_takes_lines_only(tmp_path: Path) -> None:
    """Property: no token, a wrong one, another method, a web page, too much, and what cannot be unpacked are refused,
    and leave nothing; a repeated request adds nothing; blank lines do not count; the rest is there byte for byte."""
    with FrontProcess(tmp_path / "db", token=TOKEN, lines=tmp_path / "lines") as front:
        right = {"Authorization": f"Bearer {TOKEN}"}

        def post(body: bytes, **headers: str) -> tuple[int, str]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            reply = front.request(body, headers=right | named, path=LINES_PATH)
            return reply.status, reply.text

        assert front.request(b"x\n", path=LINES_PATH).status == 401
        assert front.request(b"x\n", headers={"Authorization": "Bearer no"}, path=LINES_PATH).status == 403
        assert front.request(headers=right, path=LINES_PATH).status == 405
        assert post(b"x\n", Origin="https://evil.example")[0] == 403
        assert post(b"x\n", Content_Encoding="gzip")[0] == 400
        assert post(b"x" * (33 << 20))[0] == 413
        assert not (tmp_path / "lines").exists()
        assert post(b"") == (200, '{"lines": 0}')
        assert post(b'{"a":1}\n\n  \r\n{"b":2}', Idempotency_Key="one") == (200, '{"lines": 2}')
        assert post(b'{"a":1}\n\n  \r\n{"b":2}', Idempotency_Key="one") == (200, '{"lines": 2}')
        assert post(b"not json \xff\n", Idempotency_Key="two") == (200, '{"lines": 1}')
        assert (tmp_path / "lines" / "lines.log").read_bytes() == b'{"a":1}\n{"b":2}\nnot json \xff\n'
        with (tmp_path / "lines" / "lines.log").open("ab") as log:
            log.write(b'{"half')
        assert post(b'{"c":3}\n') == (200, '{"lines": 1}')
        assert (tmp_path / "lines" / "lines.log").read_bytes().endswith(b'{"half\n{"c":3}\n')
        shutil.rmtree(tmp_path / "lines")
        (tmp_path / "lines").write_text("a file where the folder should be")
        assert post(b"x\n")[0] == 507
    with FrontProcess(tmp_path / "db") as front:
        assert front.request(b"x\n", path=LINES_PATH).status == 404


@quiet
def test_a_server_that_is_away_is_counted_and_not_waited_for(tmp_path: Path) -> None:
    """Property: without a server nothing raises, one warning is given, and only one line a second is tried; when the
    server is back lines are taken again."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    logger = APILogger(f"http://127.0.0.1:{port}", "shop")
    trace = Trace(logger=logger)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(1000):
            trace.info("x")
    assert len(caught) == 1
    assert logger.stats().drop_reasons == {"ECONNREFUSED": 1000}
    with FrontProcess(tmp_path / "db", lines=tmp_path / "lines", port=port):
        wait_until(lambda: (trace.info("y"), logger.stats().lines)[1] > 0)


@quiet
def test_a_server_that_hangs_costs_the_timeout() -> None:
    """Property: a server that takes the connection and says nothing holds one line up for `timeout`, and no longer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        logger = APILogger(f"http://127.0.0.1:{listener.getsockname()[1]}", "shop", timeout=0.3)
        began = time.monotonic()
        Trace(logger=logger).info("x")
        Trace(logger=logger).info("y")
        assert 0.3 <= time.monotonic() - began < 3
        assert logger.stats().drop_reasons == {"timeout": 2}


@quiet
def test_attempts_share_a_key_and_lines_do_not() -> None:
    """Property: a request without an answer, or with a server's failure, is sent once more under its key; a refusal is
    not; connections that were closed while idle cost nothing."""
    with scripted(
        None,
        (200, b'{"lines":1}'),
        (503, b"later"),
        (200, b'{"lines":1}'),
        (403, b"no"),
        (500, b"a"),
        (500, b"b"),
    ) as server:
        logger = APILogger(url(server), "shop", "t")
        for number in range(4):
            Trace(logger=logger).info(str(number))
        assert [
            key == other
            for (key, _, _), (other, _, _) in zip(server.seen[::2], server.seen[1::2], strict=False)
        ][:2] == [True, True]  # type: ignore[attr-defined]
        keys = [key for key, _, _ in server.seen]  # type: ignore[attr-defined]
        assert [len(keys), len(set(keys))] == [7, 4]
        assert logger.stats().lines == 2
        assert logger.stats().drop_reasons == {"HTTP 403": 1, "HTTP 500": 1}
        logger.close()


@quiet
@pytest.mark.parametrize("answer", [b"", b"It works!", b'{"lines":0}', b"[]", b'{"lines":1', b"\xff"])
def test_a_200_of_something_else_is_not_believed(answer: bytes) -> None:
    """Property: a line counts as taken only if the answer says so."""
    with scripted((200, answer)) as server:
        logger = APILogger(url(server), "shop")
        Trace(logger=logger).info("x")
        logger.close()
    assert (logger.stats().lines, logger.stats().drop_reasons) == (0, {"not a Tailrace": 1})


@quiet
def test_raise_errors_shows_what_is_wrong() -> None:
    """Property: with `raise_errors` every line is tried, and one that is not taken raises through the trace; it is
    counted once."""
    with scripted((401, b"who are you"), (200, b'{"lines":1}')) as server:
        logger = APILogger(url(server), "shop", raise_errors=True)
        trace = Trace(logger=logger)
        with pytest.raises(DeliveryError, match=r"HTTP 401: who are you"):
            trace.info("x")
        trace.tag([{"name": "a", "value": 1}])
        logger.close()
        with pytest.raises(DeliveryError, match="closed"):
            trace.log("x", 1)
    assert (logger.stats().lines, logger.stats().dropped) == (1, 2)


@quiet
def test_certificates_are_verified(tmp_path: Path) -> None:
    """Property: over https a certificate that nobody vouches for takes no line and no token; with `ca_file` it does."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    )
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with scripted(context=context) as server:
        logger = APILogger(url(server, "https"), "shop", TOKEN)
        Trace(logger=logger).info("x")
        assert logger.stats().drop_reasons == {"SSLCertVerificationError": 1}
        assert server.seen == []  # type: ignore[attr-defined]
        trusting = APILogger(url(server, "https"), "shop", TOKEN, ca_file=certificate)
        Trace(logger=trusting).info("x")
        assert trusting.stats().lines == 1
        assert server.seen[0][1] == f"Bearer {TOKEN}"  # type: ignore[attr-defined]
        trusting.close()


@quiet
def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Property: neither `repr`, nor warnings, nor counts, nor errors hold the token, even if the server repeats it; it
    comes from TAILRACE_TOKEN where none is given, and an empty one is none."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TAILRACE_TOKEN", TOKEN)
    with scripted((403, f"{TOKEN} is wrong".encode()), (403, f"{TOKEN}".encode())) as server:
        logger = APILogger(url(server), "shop")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Trace(logger=logger).info("x")
        assert server.seen[0][1] == f"Bearer {TOKEN}"  # type: ignore[attr-defined]
        loud = APILogger(url(server), "shop", raise_errors=True)
        with pytest.raises(DeliveryError) as raised:
            Trace(logger=loud).info("x")
        without = APILogger(url(server), "shop", "")
        Trace(logger=without).info("x")
        assert server.seen[2][1] is None  # type: ignore[attr-defined]
        for each in (logger, loud, without):
            each.close()
    shown = [repr(logger), str(caught[0].message), repr(logger.stats()), str(raised.value), caplog.text]
    assert not [text for text in shown if TOKEN in text]
    for bad in ("line\nbreak", "späce", "a b"):
        with pytest.raises(ConfigError) as refused:
            APILogger("http://x", "shop", bad)
        assert bad not in str(refused.value)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "localhost:8123",
        "ftp://x",
        "http://",
        "http://u:secret@x",
        "http://x?token=secret",
        "http://x:port",
    ],
)
def test_a_wrong_url_is_refused_at_start(bad: str) -> None:
    """Property: what cannot be a server is said when the logger is made, and no password of it is repeated."""
    with pytest.raises(ConfigError) as refused:
        APILogger(bad, "shop")
    assert "u:secret" not in str(refused.value)
    with pytest.raises(ConfigError):
        APILogger("http://x", "shop", timeout=0)
    with pytest.raises(ConfigError):
        APILogger("http://x", "")
