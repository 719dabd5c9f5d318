"""The contract between everything that writes lines and everything that stores or reads them.

- `records`: the record kinds of tailrace v1
- `dialects`: the wire formats that are recognised, line by line, and mapped onto records
- `streams`: where lines come from: streams, offset ranges, chunks of a file
- `intake`: how loggers send lines by HTTP
- `timestamps`: what counts as a time
- `histogram`: distributions that merge
- `metrics`: every metric that a process serves; `health`: whether it can do its work
- `clickhouse`: connection, numbered migrations
- `errors`: every exception that this distribution raises
"""
