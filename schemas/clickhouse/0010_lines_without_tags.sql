-- A full disk or a killed server may leave the tags of a line without the line. Whoever stores the line then says in place of a
-- token that its tags are there (`TAGS_ARE_THERE` in ingestor/insert.py), and they are not stored a second time.
ALTER TABLE tags_from_lines ${on_cluster} MODIFY QUERY
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
ARRAY JOIN tags
WHERE getSetting('insert_deduplication_token') != 'tailrace: their tags are stored';
