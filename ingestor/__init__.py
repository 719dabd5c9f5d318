"""Kafka or files → ClickHouse.

A line's way through this room, one file a step:

    consume.py      partitions of a topic → messages, with their offsets
    decode.py       messages or file chunks → records or dead letters  (what a record is: tailrace.schemas)
    columns.py      records → Arrow columns, a table each
    batch.py        when a batch is full or old enough
    intents.py      "about to insert exactly [start, end)", kept in the group's offset metadata
    insert.py       columns → ClickHouse under deduplication tokens, the ledger row last
    run.py          the loop over all of these for Kafka
    embedded.py     the same for a shipper in the same process, without Kafka
"""
