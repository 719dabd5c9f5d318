-- What `tailrace backfill` knows of its past. Rows are keyed by content and by file, so writing one again changes nothing.

-- A range of a stream, noted before anything of it is stored. It is stored when the ledger has it under one of its tokens; otherwise
-- some of its rows may be stored, and the next run looks for them. The digest tells whether a file still holds the same bytes there.
CREATE TABLE IF NOT EXISTS backfill_ranges ${on_cluster}
(
    stream String,                     -- as in the ledger: file:<file id>, and the scope behind it where lines were selected
    start UInt64,
    end UInt64,
    digest String,                     -- xxh3-128 of the bytes of the range, uncompressed
    token String,                      -- of the batch that the range was part of
    announced_at DateTime64(3, 'UTC')
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (stream, start, end, digest, token)
SETTINGS ${deduplication};

-- A file that was read to its end, with everything stored. While size, time and inode stay as they are it is not opened again.
CREATE TABLE IF NOT EXISTS backfill_files ${on_cluster}
(
    scope String,                      -- what was selected and altered; '' for everything as it is
    path String,
    size Int64,
    modified Int64,                    -- nanoseconds since the epoch, or a hash of what a remote store says of the version
    inode UInt64,
    bytes UInt64,                      -- uncompressed
    lines UInt64,
    rows UInt64,
    dead_letters UInt64,
    blank UInt64,
    filtered UInt64,                   -- lines that the selection left out
    finished_at DateTime64(3, 'UTC')
)
ENGINE = ${replicated}ReplacingMergeTree(finished_at)
ORDER BY (scope, path)
SETTINGS ${deduplication};
