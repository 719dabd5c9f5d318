-- What names of tags there are, small enough to be read while somebody waits at a keyboard.
--
-- Every state is idempotent: a line that is inserted twice changes nothing, nor does the order in which parts are merged.
-- Values are not here: one row a value made inserting into tags 40 % slower, and their texts lie sorted in tags.

CREATE TABLE IF NOT EXISTS tag_stats ${on_cluster}
(
    project_id LowCardinality(String),
    name LowCardinality(String),
    kind Enum8('null' = 0, 'string' = 1, 'number' = 2, 'bool' = 3, 'json' = 4),
    type LowCardinality(String),
    group LowCardinality(String),
    day UInt32,                                              -- YYYYMMDD of trace_ts
    lines AggregateFunction(uniqCombined64(12), UInt64),     -- of line_hash: exact while few, within 2 % when many
    texts AggregateFunction(uniqCombined64(12), UInt64),     -- of the hash of str
    low SimpleAggregateFunction(min, Float64),               -- of the finite numbers; infinite when there are none
    high SimpleAggregateFunction(max, Float64)
)
ENGINE = ${replicated}AggregatingMergeTree
PARTITION BY intDiv(day, 100)
ORDER BY (project_id, name, kind, type, group, day)
SETTINGS ${deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS tag_stats_from_tags ${on_cluster} TO tag_stats AS
SELECT
    project_id,
    name,
    kind,
    type,
    group,
    toYYYYMMDD(trace_ts) AS day,
    uniqCombined64State(12)(line_hash) AS lines,
    uniqCombined64State(12)(cityHash64(str)) AS texts,
    min(if(isFinite(num), num, inf)) AS low,
    max(if(isFinite(num), num, -inf)) AS high
FROM tags
GROUP BY project_id, name, kind, type, group, day;

-- What was stored before the view was there; what it has seen already counts once all the same.
INSERT INTO tag_stats
SELECT
    project_id,
    name,
    kind,
    type,
    group,
    toYYYYMMDD(trace_ts) AS day,
    uniqCombined64State(12)(line_hash) AS lines,
    uniqCombined64State(12)(cityHash64(str)) AS texts,
    min(if(isFinite(num), num, inf)) AS low,
    max(if(isFinite(num), num, -inf)) AS high
FROM tags
GROUP BY project_id, name, kind, type, group, day
SETTINGS insert_deduplicate = 0;

-- Tags are sorted by name, and one name has few types and groups: most granules need not be read for either.
ALTER TABLE tags ${on_cluster} ADD INDEX IF NOT EXISTS type_set type TYPE set(16) GRANULARITY 1;

ALTER TABLE tags ${on_cluster} ADD INDEX IF NOT EXISTS group_set group TYPE set(16) GRANULARITY 1;
