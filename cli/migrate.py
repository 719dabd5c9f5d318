"""`tailrace migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.defaults import database
from tailrace.cli.options import ClickHouse
from tailrace.cli.setting import Setting


def migrate(
    clickhouse: ClickHouse = "",
    cluster: Annotated[
        str | None,
        typer.Option(
            envvar="TAILRACE_CLUSTER",
            metavar="NAME",
            help="Create on every replica of this cluster, with Replicated engines.",
        ),
        Setting("clickhouse.cluster"),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Print the SQL instead of running it.")] = False,
) -> None:
    """Create or upgrade the tables. Safe to run at any time, and by several at once.

    Examples:

        tailrace migrate --clickhouse clickhouse://admin@ch.example:8443/tailrace

        tailrace migrate --cluster main --print > tables.sql
    """
    from tailrace.schemas.clickhouse import connection
    from tailrace.schemas.clickhouse import migrate as migrations

    if print_only:
        typer.echo(migrations.script(cluster), nl=False)
        return
    dsn = database(clickhouse)
    client = connection.connect(dsn, create_database=True)
    try:
        done = migrations.migrate(client, cluster)
    finally:
        client.close()
    if done:
        for migration in done:
            typer.echo(f"applied {migration.version:04d}_{migration.name}")
    else:
        typer.echo(f"{dsn} is up to date")
