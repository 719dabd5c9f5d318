-- What a model monitoring session that logs no raw data says of each feature, prediction, segment and class of exceptions
-- in each window (`ts` is when it began). Rows of several windows and processes merge by adding up.
CREATE TABLE IF NOT EXISTS statistics ${on_cluster}
(
    project_id LowCardinality(String),
    deployment LowCardinality(String),
    trace_id String,
    trace_ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    line_hash UInt64 CODEC(NONE),
    seconds Float64,
    instance LowCardinality(String),
    sequence UInt64 CODEC(Delta, ZSTD(1)),
    subject LowCardinality(String),
    name LowCardinality(String),
    type LowCardinality(String),
    count UInt64 CODEC(T64, ZSTD(1)),
    missing UInt64 CODEC(T64, ZSTD(1)),
    not_finite UInt64 CODEC(T64, ZSTD(1)),
    numbers UInt64 CODEC(T64, ZSTD(1)),
    mean Nullable(Float64),
    m2 Nullable(Float64),
    mean_abs Nullable(Float64),
    min Nullable(Float64),
    max Nullable(Float64),
    bins Array(Int32) CODEC(Delta, ZSTD(1)),
    bin_counts Array(UInt64) CODEC(T64, ZSTD(1)),
    distinct String CODEC(ZSTD(1)),
    top String CODEC(ZSTD(1)),
    matches UInt64 CODEC(T64, ZSTD(1)),
    confusion String CODEC(ZSTD(1)),
    uncounted UInt64 CODEC(T64, ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMMDD(trace_ts)
ORDER BY (project_id, deployment, subject, name, ts, instance, sequence, line_hash)
SETTINGS ${deduplication};
