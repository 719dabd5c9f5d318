#!/bin/sh
# Run by the image of ClickHouse when its volume is new: users.sql with the passwords of the environment.
set -eu
clickhouse-client --user "$CLICKHOUSE_USER" --password "$CLICKHOUSE_PASSWORD" \
  "--param_ingestor_password=$INGESTOR_PASSWORD" "--param_explorer_password=$EXPLORER_PASSWORD" \
  --queries-file /etc/tailrace/users.sql
