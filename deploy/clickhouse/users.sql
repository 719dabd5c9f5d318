-- Users, roles and quotas with the least that each needs, for one server. On a cluster, put ON CLUSTER '…' behind each name,
-- or keep access in ZooKeeper (<replicated> in <user_directories>). Safe to run again.
--
--   clickhouse-client --param_ingestor_password=… --param_explorer_password=… --queries-file users.sql
--
-- The user who runs `tailrace migrate` owns the tables: ALL ON tailrace.*.

CREATE DATABASE IF NOT EXISTS tailrace;

CREATE ROLE IF NOT EXISTS tailrace_ingest;

-- Rows go in. What is read back is the ledger of ranges, the version of the tables, and, where an insert is in doubt, which rows are
-- there, by their hash, and the tags of lines. Messages and payloads cannot be read, and nothing can be changed or dropped.
GRANT INSERT ON tailrace.* TO tailrace_ingest;

GRANT SELECT ON tailrace.ledger TO tailrace_ingest;

GRANT SELECT ON tailrace.schema_migrations TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.logs TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.tags TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.objects TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.traces TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.event_lines TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.feedback TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.predictions TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.ground_truths TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.exceptions TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.metadata TO tailrace_ingest;

GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.statistics TO tailrace_ingest;

GRANT SELECT ON tailrace.tag_lines TO tailrace_ingest;

GRANT SELECT(topic, partition, offset, item, file_id, byte) ON tailrace.dead_letters TO tailrace_ingest;

-- `tailrace dead-letters replay` and backfills run as the migrating user: they read lines and look for their rows.
CREATE ROLE IF NOT EXISTS tailrace_explore;

GRANT SELECT ON tailrace.* TO tailrace_explore;

CREATE SETTINGS PROFILE IF NOT EXISTS tailrace_ingest SETTINGS
    async_insert = 0 READONLY,
    max_memory_usage = 8000000000
TO tailrace_ingest;

-- readonly = 2: no change of any kind, but settings of a query, which drivers and Grafana send, are allowed.
CREATE SETTINGS PROFILE IF NOT EXISTS tailrace_explore SETTINGS
    readonly = 2,
    max_execution_time = 60 MAX 300,
    max_memory_usage = 8000000000 MAX 16000000000,
    max_rows_to_read = 0,
    max_result_rows = 10000000,
    max_concurrent_queries_for_user = 32
TO tailrace_explore;

CREATE QUOTA IF NOT EXISTS tailrace_explore KEYED BY user_name
    FOR INTERVAL 1 minute MAX queries = 1200, errors = 300, execution_time = 600
TO tailrace_explore;

CREATE USER IF NOT EXISTS tailrace_ingestor IDENTIFIED BY {ingestor_password:String} DEFAULT ROLE tailrace_ingest;

GRANT tailrace_ingest TO tailrace_ingestor;

CREATE USER IF NOT EXISTS tailrace_explorer IDENTIFIED BY {explorer_password:String} DEFAULT ROLE tailrace_explore;

GRANT tailrace_explore TO tailrace_explorer;
