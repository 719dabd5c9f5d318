-- Several shards: the tables of each in the database tailrace_local, and in the database tailrace, under the same names, Distributed
-- ones over them. Ingestor, explorer and Grafana use tailrace. Every trace is whole on one shard, so that joins stay local.
--
-- In this order, once and after each upgrade:
--
--   clickhouse-client --query "CREATE DATABASE IF NOT EXISTS tailrace_local ON CLUSTER '{cluster}'"
--   tailrace migrate --clickhouse clickhouse://admin@ch-1:8123/tailrace_local --cluster '{cluster}'
--   clickhouse-client --queries-file users.sql …        # on every server
--   clickhouse-client --queries-file cluster.sql
--
-- A Distributed table holds nothing, because inserts pass through it in the foreground: it is replaced, and so gets new columns.
-- '{cluster}' is ClickHouse's own macro: it is replaced by each server. The settings at the end belong to the two profiles.

CREATE DATABASE IF NOT EXISTS tailrace ON CLUSTER '{cluster}';

CREATE OR REPLACE TABLE tailrace.logs ON CLUSTER '{cluster}' AS tailrace_local.logs
ENGINE = Distributed('{cluster}', tailrace_local, logs, cityHash64(trace_id));

CREATE OR REPLACE TABLE tailrace.tag_lines ON CLUSTER '{cluster}' AS tailrace_local.tag_lines
ENGINE = Distributed('{cluster}', tailrace_local, tag_lines, cityHash64(trace_id));

CREATE OR REPLACE TABLE tailrace.tags ON CLUSTER '{cluster}' AS tailrace_local.tags
ENGINE = Distributed('{cluster}', tailrace_local, tags, trace_hash);

CREATE OR REPLACE TABLE tailrace.objects ON CLUSTER '{cluster}' AS tailrace_local.objects
ENGINE = Distributed('{cluster}', tailrace_local, objects, cityHash64(trace_id));

CREATE OR REPLACE TABLE tailrace.traces ON CLUSTER '{cluster}' AS tailrace_local.traces
ENGINE = Distributed('{cluster}', tailrace_local, traces, cityHash64(trace_id));

CREATE OR REPLACE TABLE tailrace.event_lines ON CLUSTER '{cluster}' AS tailrace_local.event_lines
ENGINE = Distributed('{cluster}', tailrace_local, event_lines, cityHash64(trace_id));

CREATE OR REPLACE TABLE tailrace.feedback ON CLUSTER '{cluster}' AS tailrace_local.feedback
ENGINE = Distributed('{cluster}', tailrace_local, feedback, cityHash64(trace_id));

-- Monitoring lines need not belong to a trace: a deployment is whole on one shard, so that predictions meet their ground truths.

CREATE OR REPLACE TABLE tailrace.predictions ON CLUSTER '{cluster}' AS tailrace_local.predictions
ENGINE = Distributed('{cluster}', tailrace_local, predictions, cityHash64(deployment));

CREATE OR REPLACE TABLE tailrace.ground_truths ON CLUSTER '{cluster}' AS tailrace_local.ground_truths
ENGINE = Distributed('{cluster}', tailrace_local, ground_truths, cityHash64(deployment));

CREATE OR REPLACE TABLE tailrace.exceptions ON CLUSTER '{cluster}' AS tailrace_local.exceptions
ENGINE = Distributed('{cluster}', tailrace_local, exceptions, cityHash64(deployment));

CREATE OR REPLACE TABLE tailrace.metadata ON CLUSTER '{cluster}' AS tailrace_local.metadata
ENGINE = Distributed('{cluster}', tailrace_local, metadata, cityHash64(deployment));

CREATE OR REPLACE TABLE tailrace.statistics ON CLUSTER '{cluster}' AS tailrace_local.statistics
ENGINE = Distributed('{cluster}', tailrace_local, statistics, cityHash64(deployment));

-- A letter and what became of it stand together: this is the expression of dead_letters.id.

CREATE OR REPLACE TABLE tailrace.dead_letters ON CLUSTER '{cluster}' AS tailrace_local.dead_letters
ENGINE = Distributed('{cluster}', tailrace_local, dead_letters, sipHash64(source, topic, partition, offset, item, file_id, byte, raw));

CREATE OR REPLACE TABLE tailrace.dead_letter_replays ON CLUSTER '{cluster}' AS tailrace_local.dead_letter_replays
ENGINE = Distributed('{cluster}', tailrace_local, dead_letter_replays, letter);

CREATE OR REPLACE TABLE tailrace.ledger ON CLUSTER '{cluster}' AS tailrace_local.ledger
ENGINE = Distributed('{cluster}', tailrace_local, ledger, cityHash64(stream));

CREATE OR REPLACE TABLE tailrace.backfill_ranges ON CLUSTER '{cluster}' AS tailrace_local.backfill_ranges
ENGINE = Distributed('{cluster}', tailrace_local, backfill_ranges, cityHash64(stream));

CREATE OR REPLACE TABLE tailrace.backfill_files ON CLUSTER '{cluster}' AS tailrace_local.backfill_files
ENGINE = Distributed('{cluster}', tailrace_local, backfill_files, cityHash64(path));

-- Only read through here: filled on each shard by a materialized view, or views themselves.

CREATE OR REPLACE TABLE tailrace.tag_stats ON CLUSTER '{cluster}' AS tailrace_local.tag_stats
ENGINE = Distributed('{cluster}', tailrace_local, tag_stats);

CREATE OR REPLACE TABLE tailrace.events ON CLUSTER '{cluster}' AS tailrace_local.events
ENGINE = Distributed('{cluster}', tailrace_local, events);

CREATE OR REPLACE TABLE tailrace.dead_letter_states ON CLUSTER '{cluster}' AS tailrace_local.dead_letter_states
ENGINE = Distributed('{cluster}', tailrace_local, dead_letter_states);

CREATE OR REPLACE TABLE tailrace.schema_migrations ON CLUSTER '{cluster}' AS tailrace_local.schema_migrations
ENGINE = Distributed('{cluster}', tailrace_local, schema_migrations);

-- A batch is acknowledged when every shard has it; its token goes along, so that each shard drops what it has already.
ALTER SETTINGS PROFILE tailrace_ingest ON CLUSTER '{cluster}' ADD SETTINGS
    distributed_foreground_insert = 1 READONLY,
    insert_quorum = 'auto';

-- The parts of a trace are on one shard: a subquery is asked there, of that shard's own tables.
ALTER SETTINGS PROFILE tailrace_explore ON CLUSTER '{cluster}' ADD SETTINGS
    distributed_product_mode = 'local',
    optimize_skip_unused_shards = 1;

GRANT ON CLUSTER '{cluster}' INSERT ON tailrace_local.* TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT ON tailrace_local.ledger TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT ON tailrace_local.schema_migrations TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.logs TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.tags TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.objects TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.traces TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.event_lines TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.feedback TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.predictions TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.ground_truths TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.exceptions TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.metadata TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(project_id, trace_ts, line_hash) ON tailrace_local.statistics TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT ON tailrace_local.tag_lines TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT(topic, partition, offset, item, file_id, byte) ON tailrace_local.dead_letters TO tailrace_ingest;

GRANT ON CLUSTER '{cluster}' SELECT ON tailrace_local.* TO tailrace_explore;
