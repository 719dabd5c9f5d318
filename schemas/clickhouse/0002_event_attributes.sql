-- What an LLM event says of itself at its start, as JSON: the model, its parameters. '' in lines that older clients wrote.
ALTER TABLE event_lines ${on_cluster} ADD COLUMN IF NOT EXISTS attributes String CODEC(ZSTD(1)) AFTER input;

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
    argMinIf(l.attributes, (l.ts, l.line_hash), l.phase = 'start') AS attributes,
    argMaxIf(l.output, (l.ts, l.line_hash), l.phase = 'end') AS output,
    if(countIf(l.phase = 'end') = 0, 'open', argMaxIf(l.status, (l.ts, l.line_hash), l.phase = 'end')) AS status,
    argMaxIf(l.error, (l.ts, l.line_hash), l.phase = 'end') AS error,
    argMaxIf(l.usage, (l.ts, l.line_hash), l.phase = 'end') AS usage
FROM event_lines AS l
GROUP BY project_id, trace_id, event_id;
