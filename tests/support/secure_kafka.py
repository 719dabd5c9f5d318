"""A real Kafka that asks who comes: TLS with an authority made here, passwords, tokens, certificates, and access rules.

    secure = SecureKafka(folder)
    secure.start()
    secure.allow("User:shipper", Resource.TOPIC, "tailrace", Operation.WRITE, Operation.DESCRIBE)
    environment = secure.login("SCRAM-SHA-512", "shipper")

`secure.broker` is reached without any of that, as the administrator.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
from enum import IntEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from support.kafka import KafkaBroker, free_ports

PASSWORD = "correct horse battery staple"
_LOGIN_MODULES = "org.apache.kafka.common.security"


class Resource(IntEnum):
    """What a rule is about; the numbers are Kafka's."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Operation(IntEnum):
    """What a rule allows; the numbers are Kafka's."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DESCRIBE = 8


class SecureKafka:
    """One broker with three doors: SASL over TLS, TLS with certificates of both sides, and one for the administrator.

    Args:
        folder: For the broker's data and the certificates.
        users: Who has `PASSWORD`, with PLAIN and SCRAM alike.
    """

    def __init__(self, folder: Path, users: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.authority = trustme.CA()
        self.ca_file = self._write("ca.pem", self.authority.cert_pem.bytes())
        self.other_ca_file = self._write("other-ca.pem", trustme.CA().cert_pem.bytes())
        keystore = _with_chain(self.authority.issue_cert("localhost"))
        sasl, mutual = free_ports(2)
        self.sasl, self.mutual = f"localhost:{sasl}", f"localhost:{mutual}"
        passwords = " ".join(f'user_{user}="{PASSWORD}"' for user in users)
        modules = {
            "plain": f"{_LOGIN_MODULES}.plain.PlainLoginModule required {passwords};",
            "scram-sha-256": f"{_LOGIN_MODULES}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{_LOGIN_MODULES}.scram.ScramLoginModule required;",
            # Takes tokens that nobody signed, which is Kafka's own for tests.
            "oauthbearer": f"{_LOGIN_MODULES}.oauthbearer.OAuthBearerLoginModule required;",
        }
        self.broker = KafkaBroker(
            folder / "broker",
            {
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": self._write("broker.pem", keystore),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": self.ca_file,
                "listener.name.mutual.ssl.client.auth": "required",
                "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/,DEFAULT",
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
                **{
                    f"listener.name.sasl.{mechanism}.sasl.jaas.config": module
                    for mechanism, module in modules.items()
                },
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
            listeners={"SASL": sasl, "MUTUAL": mutual},
            scram_users=dict.fromkeys(users, PASSWORD),
        )

    def start(self) -> None:
        """As `KafkaBroker.start`."""
        self.broker.start()

    def stop(self) -> None:
        """As `KafkaBroker.stop`."""
        self.broker.stop()

    def allow(self, principal: str, resource: Resource, name: str, *operations: Operation) -> None:
        """One rule an operation, for exactly this name (`*` for all)."""
        asyncio.run(self._allow(principal, resource, name, operations))

    async def _allow(
        self, principal: str, resource: Resource, name: str, operations: tuple[Operation, ...]
    ) -> None:
        literal, allow = 3, 3
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        try:
            for operation in operations:
                request = CreateAclsRequest(resource, name, literal, principal, "*", operation, allow)
                answer: Any = await admin._send_request(request)
                assert answer.creation_responses[0][0] == 0, answer
        finally:
            await admin.close()

    def password_login(self, mechanism: str, user: str, password: str = PASSWORD) -> dict[str, str]:
        """Variables for `tailrace`: over TLS, with a user and a password in a file."""
        return {
            "TAILRACE_KAFKA": self.sasl,
            "TAILRACE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "TAILRACE_KAFKA_SASL_MECHANISM": mechanism,
            "TAILRACE_KAFKA_USERNAME": user,
            "TAILRACE_KAFKA_PASSWORD_FILE": self._write(f"password-{user}", f"{password}\n".encode()),
            "TAILRACE_KAFKA_CA_FILE": self.ca_file,
        }

    def token_login(self, user: str) -> dict[str, str]:
        """Variables for `tailrace`: over TLS, with a token in a file."""
        return {
            "TAILRACE_KAFKA": self.sasl,
            "TAILRACE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "TAILRACE_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "TAILRACE_KAFKA_TOKEN_FILE": self._write(f"token-{user}", unsigned_token(user).encode()),
            "TAILRACE_KAFKA_CA_FILE": self.ca_file,
        }

    def endpoint_login(self, endpoint: TokenEndpoint, secret: str = PASSWORD) -> dict[str, str]:
        """Variables for `tailrace`: over TLS, with tokens of an endpoint whose secret is in a file."""
        return {
            "TAILRACE_KAFKA": self.sasl,
            "TAILRACE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "TAILRACE_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "TAILRACE_KAFKA_TOKEN_URL": endpoint.url,
            "TAILRACE_KAFKA_CLIENT_ID": "shipper",
            "TAILRACE_KAFKA_CLIENT_SECRET_FILE": self._write("client-secret", f"{secret}\n".encode()),
            "TAILRACE_KAFKA_TOKEN_CA_FILE": self.ca_file,
            "TAILRACE_KAFKA_CA_FILE": self.ca_file,
        }

    def certificate_login(self, user: str) -> dict[str, str]:
        """Variables for `tailrace`: TLS with a certificate of our own."""
        issued = self.authority.issue_cert(f"{user}.invalid", common_name=user)
        return {
            "TAILRACE_KAFKA": self.mutual,
            "TAILRACE_KAFKA_SECURITY_PROTOCOL": "SSL",
            "TAILRACE_KAFKA_CA_FILE": self.ca_file,
            "TAILRACE_KAFKA_CERT_FILE": self._write(f"{user}.pem", issued.cert_chain_pems[0].bytes()),
            "TAILRACE_KAFKA_KEY_FILE": self._write(f"{user}.key", issued.private_key_pem.bytes()),
        }

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)


class TokenEndpoint:
    """An authorisation server on loopback, by HTTPS: gives unsigned tokens to clients whose secret is `PASSWORD`.

    Args:
        authority: Signs its certificate.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self.lifetime = 3600
        self.answer: tuple[int, bytes] | None = None  # instead of what it would say
        self.asked: list[dict[str, list[str]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                endpoint.asked.append(form)
                coded = self.headers["Authorization"].removeprefix("Basic ")
                client, secret = map(unquote_plus, base64.b64decode(coded).decode().split(":"))
                status, body = endpoint.answer or endpoint.answer_to(client, secret, form)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}/token"

    def __enter__(self) -> TokenEndpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer_to(self, client: str, secret: str, form: dict[str, list[str]]) -> tuple[int, bytes]:
        """As RFC 6749 has it: 5.1 and 5.2."""
        if secret != PASSWORD:
            return 401, b'{"error":"invalid_client","error_description":"wrong secret"}'
        if form["grant_type"] != ["client_credentials"]:
            return 400, b'{"error":"unsupported_grant_type"}'
        token = {"access_token": unsigned_token(client), "token_type": "Bearer", "expires_in": self.lifetime}
        return 200, json.dumps(token).encode()


def unsigned_token(user: str) -> str:
    """A token that says who comes, for an hour, signed by nobody."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + 3600})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"{coded[0]}.{coded[1]}."


def _with_chain(issued: trustme.LeafCert) -> bytes:
    """Key and certificate in one file; Kafka reads keys as PKCS#8 only."""
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem + b"".join(part.bytes() for part in issued.cert_chain_pems)
