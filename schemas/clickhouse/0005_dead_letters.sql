-- What became of dead letters that were replayed.

-- Names a letter: the same origin and bytes always give the same id, however often they are read.
ALTER TABLE dead_letters ${on_cluster}
    ADD COLUMN IF NOT EXISTS id UInt64 MATERIALIZED sipHash64(source, topic, partition, offset, item, file_id, byte, raw);

-- One row a letter, batch and state. A batch is announced with its lines before anything of it is stored, so that a replay
-- that was cut short is finished with exactly these lines; then every letter of it is either stored or rejected.
CREATE TABLE IF NOT EXISTS dead_letter_replays ${on_cluster}
(
    letter UInt64,                     -- dead_letters.id
    token String,                      -- names the batch; the ledger has it too once the batch is stored
    state Enum8('announced' = 1, 'stored' = 2, 'rejected' = 3),
    number UInt32,                     -- place in the batch
    line String CODEC(ZSTD(3)),        -- announced: what was replayed
    line_hash UInt64,                  -- stored: which row it is
    table LowCardinality(String),      -- stored: where
    project_id LowCardinality(String),
    trace_id String,
    reason LowCardinality(String),     -- rejected: why
    detail String CODEC(ZSTD(1)),
    column Int64,
    at DateTime64(6, 'UTC')
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (letter, token, state)
SETTINGS ${deduplication};

-- Every dead letter once, with what is known of it now: state 'open' or 'replayed', and the reason of the latest attempt.
CREATE OR REPLACE VIEW dead_letter_states ${on_cluster} AS
SELECT
    l.id AS id,
    l.received_at AS received_at,
    if(empty(r.reason), toString(l.reason), r.reason) AS reason,
    if(empty(r.reason), l.detail, r.detail) AS detail,
    if(empty(r.reason), l.column, r.column) AS column,
    l.source AS source,
    l.topic AS topic,
    l.partition AS partition,
    l.offset AS offset,
    l.item AS item,
    l.file_id AS file_id,
    l.file AS file,
    l.byte AS byte,
    l.length AS length,
    l.raw AS raw,
    if(r.stored, 'replayed', 'open') AS state,
    r.attempts AS attempts,
    r.at AS replayed_at,
    r.table AS table,
    r.project_id AS project_id,
    r.trace_id AS trace_id
FROM
(
    SELECT id, received_at, reason, detail, column, source, topic, partition, offset, item, file_id, file, byte, length, raw
    FROM dead_letters
    LIMIT 1 BY id
) AS l
LEFT JOIN
(
    SELECT
        letter,
        max(t.state = 'stored') AS stored,
        uniqExactIf(t.token, t.state != 'announced') AS attempts,
        maxIf(t.at, t.state = 'stored') AS at,
        toString(argMaxIf(t.table, t.at, t.state = 'stored')) AS table,
        toString(argMaxIf(t.project_id, t.at, t.state = 'stored')) AS project_id,
        argMaxIf(t.trace_id, t.at, t.state = 'stored') AS trace_id,
        toString(argMaxIf(t.reason, t.at, t.state = 'rejected')) AS reason,
        argMaxIf(t.detail, t.at, t.state = 'rejected') AS detail,
        argMaxIf(t.column, t.at, t.state = 'rejected') AS column
    FROM dead_letter_replays AS t
    GROUP BY letter
) AS r ON r.letter = l.id;
