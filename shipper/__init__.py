"""Files to somewhere: finds log files, reads their whole lines, and delivers each of them exactly once.

    discover → tail → lines → prepare → deliver → acknowledge

- `settings`: what can be set, and which combinations are refused
- `discover`, `watch`: which files there are, and when to look again
- `identity`: which file is which, over rename, copy, truncation and replacement
- `lines`, `tail`: whole lines out of growing files
- `checkpoint`, `deliver`: progress on disk, for a receiver that drops what it has already seen
- `connect`, `topics`, `produce`, `transact`: Kafka, and progress inside the same transaction as the lines
- `run`: the pipeline
"""
