"""Files that lie around → ClickHouse, once, on all cores.

A line's way through this folder, one file a step:

    sources.py      patterns, directories, URLs → sources; a source → its streams of bytes, uncompressed, archives unpacked
    split.py        bytes → ranges of whole lines, always cut in the same places
    select.py       which records are wanted, and under which project
    known.py        what is said of ranges and files between runs
    work.py         the loop of a worker, a process or a thread, over the three above and `decode.py`
    channel.py      the way between the storing process and a worker that is one of its threads
    claims.py       what earlier runs stored or announced, and how a run announces and finishes
    gather.py       ranges → batches
    run.py          hands out work, announces, inserts, counts
    report.py       what a run finds finished, and what it did, file by file
    noted.py        what answers for the embedded engine when everything is finished, without starting it
    status.py       how far earlier runs got
    copies.py       which ranges stand in a file too, for the audit

How a line gets in once. A range is named by its file's identity, its place and the digest of its bytes, and files are known
by what they hold: a renamed, copied, compressed or grown file brings the same ranges. Before a batch is stored its ranges are
noted with the batch's token (`backfill_ranges`); then come the tables and the ledger rows, in the order of `insert.py`. A
range that the ledger has is never sent again. One that is noted and not in the ledger may be stored in part: its rows are looked
for first, and only those that are missing are inserted. What is left of a crash at any step is one of these three.

Lines that came another way, for example through `tailrace up`, are the same rows by their content (`line_hash` and the
natural key), and readers count them once. Where some rows of a batch are there, each is looked for, and only those that are missing
are inserted and counted; our ledger rows say what stands in the tables because of us.
"""
