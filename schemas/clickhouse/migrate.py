"""Numbered migrations, recorded in `schema_migrations`.

Every statement is idempotent by itself (`IF NOT EXISTS`, `OR REPLACE`), so two processes that migrate at the
same time, or one that is killed half way and starts again, end with the same tables; ClickHouse has no lock
to take and needs none here.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from string import Template
from typing import Any

import msgspec

from tailrace.schemas.clickhouse.connection import translated
from tailrace.schemas.errors import ConfigError, SchemaMismatch

_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_CLUSTER = re.compile(r"^[A-Za-z0-9_.-]+$|^\{[a-z_]+\}$")

_VERSIONS = """
CREATE TABLE IF NOT EXISTS schema_migrations ${on_cluster}
(
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY version
"""

DEDUPLICATION_BLOCKS = 100_000
"""How many inserted blocks each table remembers by token. At one block a second this covers more than a day; the
ledger covers what is older."""
DEDUPLICATION_SECONDS = 14 * 24 * 3600


class Migration(msgspec.Struct, frozen=True):
    """One numbered file.

    Args:
        version: From the file's name.
        name: Likewise.
        statements: In order, with `${…}` placeholders for what differs on a cluster.
        checksum: Of the file as shipped.
    """

    version: int
    name: str
    statements: tuple[str, ...]
    checksum: str


def load() -> list[Migration]:
    """The migrations that this version of Tailrace ships, in order."""
    found = []
    for entry in resources.files("tailrace.schemas.clickhouse").iterdir():
        if match := _NAME.match(entry.name):
            text = entry.read_text(encoding="utf-8")
            found.append(
                Migration(
                    version=int(match.group(1)),
                    name=match.group(2),
                    statements=tuple(_statements(text)),
                    checksum=hashlib.sha256(text.encode()).hexdigest()[:16],
                )
            )
    return sorted(found, key=lambda migration: migration.version)


def _statements(text: str) -> list[str]:
    """Splits at `;` at the end of a line, which the migrations keep to, and drops pure comments."""
    pieces = re.split(r";[ \t]*(?:\n|$)", text)
    return [piece.strip() for piece in pieces if re.sub(r"--[^\n]*", "", piece).strip()]


def render(statement: str, cluster: str | None = None) -> str:
    """A statement for one server, or for every replica of `cluster`.

    Raises:
        ConfigError: `cluster` is not a name.
    """
    if cluster is not None and not _CLUSTER.match(cluster):
        raise ConfigError(f"--cluster {cluster!r} is not a cluster name")
    window = "replicated_deduplication_window" if cluster else "non_replicated_deduplication_window"
    deduplication = f"{window} = {DEDUPLICATION_BLOCKS}"
    if cluster:
        deduplication += f", replicated_deduplication_window_seconds = {DEDUPLICATION_SECONDS}"
    return Template(statement).substitute(
        on_cluster=f"ON CLUSTER '{cluster}'" if cluster else "",
        replicated="Replicated" if cluster else "",
        deduplication=deduplication,
    )


def script(cluster: str | None = None) -> str:
    """Everything that `migrate` would run on an empty database, as one SQL script."""
    parts = [render(_VERSIONS, cluster).strip()]
    parts += [render(statement, cluster) for migration in load() for statement in migration.statements]
    return ";\n\n".join(parts) + ";\n"


def applied(client: Any) -> dict[int, str]:
    """Versions that the database has, with the checksum each was applied from; empty for a new database."""
    with translated("ClickHouse"):
        exists = client.query(
            "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_migrations'"
        ).result_rows[0][0]
        if not exists:
            return {}
        rows = client.query(
            "SELECT version, argMax(checksum, applied_at) FROM schema_migrations GROUP BY version"
        ).result_rows
    return {int(version): str(checksum) for version, checksum in rows}


def migrate(client: Any, cluster: str | None = None) -> list[Migration]:
    """Bring the database up to this version. Does nothing where it already is.

    Args:
        client: A clickhouse-connect client whose database exists.
        cluster: Create on every replica of this cluster, with Replicated engines.

    Returns:
        What was applied now, in order.

    Raises:
        SchemaMismatch: The database is newer than this program.
        ClickHouseRejected: A statement was refused, for example for want of a grant.
    """
    have = applied(client)
    ours = load()
    newest = ours[-1].version
    if have and max(have) > newest:
        raise SchemaMismatch(
            f"the database is at version {max(have)}, this program knows only up to {newest}: upgrade Tailrace"
        )
    done = []
    with translated("ClickHouse"):
        if not have:
            client.command(render(_VERSIONS, cluster))
        for migration in ours:
            if migration.version in have:
                continue
            for statement in migration.statements:
                client.command(render(statement, cluster))
            # Not `insert`: that imports pandas, which takes longer than a new database.
            client.command(
                "INSERT INTO schema_migrations (version, name, checksum) "
                "SELECT {version:UInt32}, {name:String}, {checksum:String}",
                parameters={
                    "version": migration.version,
                    "name": migration.name,
                    "checksum": migration.checksum,
                },
            )
            done.append(migration)
    return done


def require_current(client: Any) -> None:
    """Refuses to work on a database that is behind or ahead.

    Raises:
        SchemaMismatch: With the command that mends it.
    """
    have = applied(client)
    missing = [migration.version for migration in load() if migration.version not in have]
    if missing:
        raise SchemaMismatch(f"the database lacks migration {missing[0]:04d}: run `tailrace migrate` first")
