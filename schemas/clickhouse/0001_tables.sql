-- The tables of tailrace v1.
--
-- Common columns
--   trace_ts   when the trace began (from a UUIDv7 trace id, the record, or else the line's own ts): the partition, so that
--              a line that arrives hours late lands beside its trace
--   line_hash  xxh3-64 of the raw line. With the natural key it makes storage idempotent by content: a line that arrives
--              twice is one row after merges, and every reader gives the same answer before them
-- Sorting by hour keeps the lines of a trace together for ids that say nothing of time; the hour is an Int64 because DateTime
-- ends in 2106 and timestamps may not.

CREATE TABLE IF NOT EXISTS logs ${on_cluster}
(
    project_id LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    level LowCardinality(String),
    message String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, intDiv(toUnixTimestamp64Second(trace_ts), 3600), trace_id, ts, line_hash)
SETTINGS ${deduplication};

CREATE TABLE IF NOT EXISTS tag_lines ${on_cluster}
(
    project_id LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    tags Nested
    (
        name LowCardinality(String),
        type LowCardinality(String),
        group LowCardinality(String),
        -- what the value was: its text is always in str; num holds it too where it is a number or a boolean, else NaN
        kind Enum8('null' = 0, 'string' = 1, 'number' = 2, 'bool' = 3, 'json' = 4),
        str String,
        num Float64
    ),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, intDiv(toUnixTimestamp64Second(trace_ts), 3600), trace_id, ts, line_hash)
SETTINGS ${deduplication};

-- One row a tag, sorted by what slices filter on. trace_hash = cityHash64(trace_id): 8 bytes instead of the id.
CREATE TABLE IF NOT EXISTS tags ${on_cluster}
(
    project_id LowCardinality(String),
    name LowCardinality(String),
    kind Enum8('null' = 0, 'string' = 1, 'number' = 2, 'bool' = 3, 'json' = 4),
    str String CODEC(ZSTD(1)),
    num Float64 CODEC(ZSTD(1)),
    type LowCardinality(String),
    group LowCardinality(String),
    trace_hash UInt64 CODEC(NONE),
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE)
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
PRIMARY KEY (project_id, name, str, num, trace_ts, trace_hash, line_hash)
-- A line may hold the same name and text as two kinds, types or groups (null and "null"): both are rows.
ORDER BY (project_id, name, str, num, trace_ts, trace_hash, line_hash, kind, type, group)
SETTINGS ${deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS tags_from_lines ${on_cluster} TO tags AS
SELECT
    project_id,
    tags.name AS name,
    tags.kind AS kind,
    tags.str AS str,
    tags.num AS num,
    tags.type AS type,
    tags.group AS group,
    cityHash64(trace_id) AS trace_hash,
    trace_ts,
    ts,
    line_hash
FROM tag_lines
ARRAY JOIN tags;

CREATE TABLE IF NOT EXISTS objects ${on_cluster}
(
    project_id LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    ref String CODEC(ZSTD(1)),
    type LowCardinality(String),
    data String CODEC(ZSTD(3)),
    size UInt64 MATERIALIZED length(data),
    preview String MATERIALIZED substring(data, 1, 256) CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, intDiv(toUnixTimestamp64Second(trace_ts), 3600), trace_id, ref, ts, line_hash)
SETTINGS ${deduplication};

CREATE TABLE IF NOT EXISTS traces ${on_cluster}
(
    project_id LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    name String,
    conversation_id String,
    session_id String,
    user_id String,
    user String CODEC(ZSTD(1)),
    metadata String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX conversation_bloom conversation_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, intDiv(toUnixTimestamp64Second(trace_ts), 3600), trace_id, ts, line_hash)
SETTINGS ${deduplication};

-- Start and end of an LLM event are two lines, written apart; the view `events` puts them together.
CREATE TABLE IF NOT EXISTS event_lines ${on_cluster}
(
    project_id LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    event_id String,
    phase Enum8('start' = 1, 'end' = 2),
    parent_id String,
    event_type LowCardinality(String),
    name String,
    input String CODEC(ZSTD(1)),
    output String CODEC(ZSTD(1)),
    status LowCardinality(String),
    error String CODEC(ZSTD(1)),
    usage String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, intDiv(toUnixTimestamp64Second(trace_ts), 3600), trace_id, event_id, phase, ts, line_hash)
SETTINGS ${deduplication};

CREATE OR REPLACE VIEW events ${on_cluster} AS
SELECT
    project_id,
    trace_id,
    event_id,
    min(l.trace_ts) AS trace_ts,
    argMinIf(l.event_type, (l.ts, l.line_hash), l.phase = 'start') AS event_type,
    argMinIf(l.parent_id, (l.ts, l.line_hash), l.phase = 'start') AS parent_id,
    argMinIf(l.name, (l.ts, l.line_hash), l.phase = 'start') AS name,
    minIfOrNull(l.ts, l.phase = 'start') AS started,
    maxIfOrNull(l.ts, l.phase = 'end') AS ended,
    argMinIf(l.input, (l.ts, l.line_hash), l.phase = 'start') AS input,
    argMaxIf(l.output, (l.ts, l.line_hash), l.phase = 'end') AS output,
    if(countIf(l.phase = 'end') = 0, 'open', argMaxIf(l.status, (l.ts, l.line_hash), l.phase = 'end')) AS status,
    argMaxIf(l.error, (l.ts, l.line_hash), l.phase = 'end') AS error,
    argMaxIf(l.usage, (l.ts, l.line_hash), l.phase = 'end') AS usage
FROM event_lines AS l
GROUP BY project_id, trace_id, event_id;

CREATE TABLE IF NOT EXISTS feedback ${on_cluster}
(
    project_id LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    feedback_tag LowCardinality(String),
    feedback_text String CODEC(ZSTD(1)),
    score Nullable(Float64),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, intDiv(toUnixTimestamp64Second(trace_ts), 3600), trace_id, ts, line_hash)
SETTINGS ${deduplication};

-- The four kinds of a model monitoring session belong to a deployment first, and not always to a trace.
CREATE TABLE IF NOT EXISTS predictions ${on_cluster}
(
    project_id LowCardinality(String),
    deployment LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    prediction_id String,
    features String CODEC(ZSTD(1)),
    prediction String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, deployment, ts, trace_id, line_hash)
SETTINGS ${deduplication};

CREATE TABLE IF NOT EXISTS ground_truths ${on_cluster}
(
    project_id LowCardinality(String),
    deployment LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    prediction_id String,
    label String CODEC(ZSTD(1)),
    prediction String CODEC(ZSTD(1)),
    segments Array(LowCardinality(String)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, deployment, ts, trace_id, line_hash)
SETTINGS ${deduplication};

CREATE TABLE IF NOT EXISTS exceptions ${on_cluster}
(
    project_id LowCardinality(String),
    deployment LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    message String CODEC(ZSTD(1)),
    stack_trace String CODEC(ZSTD(1)),
    extra_info String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, deployment, ts, trace_id, line_hash)
SETTINGS ${deduplication};

CREATE TABLE IF NOT EXISTS metadata ${on_cluster}
(
    project_id LowCardinality(String),
    deployment LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    entries String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, deployment, ts, line_hash)
SETTINGS ${deduplication};

-- A line that cannot become a record: its bytes, where it came from, and why. One row an origin, however often it is read.
CREATE TABLE IF NOT EXISTS dead_letters ${on_cluster}
(
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    reason LowCardinality(String),
    detail String CODEC(ZSTD(1)),
    column Int64,                      -- byte in the line where the fault was noticed; -1 when unknown
    source Enum8('kafka' = 1, 'file' = 2),
    topic LowCardinality(String),
    partition Int32,                   -- -1 when it did not come through Kafka
    offset Int64,                      -- -1 likewise
    item UInt32,                       -- which line of a Kafka message that holds several, from 0
    file_id String,                    -- '' when unknown
    file String,
    byte Int64,                        -- position of the line in its file; -1 when unknown
    length UInt64,                     -- bytes of the whole line; raw may be only its head
    raw String CODEC(ZSTD(3))
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (source, topic, partition, offset, file_id, byte, item)
SETTINGS ${deduplication};

-- Which ranges of which streams are stored. Written last, after all the rows of its range.
CREATE TABLE IF NOT EXISTS ledger ${on_cluster}
(
    stream String,                     -- topic/partition, or file:<file id>
    start UInt64,
    end UInt64,
    token String,
    lines UInt64,
    rows UInt64,
    dead_letters UInt64,
    blank UInt64,
    bytes UInt64,
    path String,
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (stream, start, end)
SETTINGS ${deduplication};
