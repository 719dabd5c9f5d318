"""Everything that reads what the pipeline stored: slices, traces, objects. Nothing here writes or prints.

    explorer = Explorer(connect(Dsn.parse("chdb:///var/lib/tailrace")))
    report = explorer.slice("client==bigshot && latency_ms>=100", metrics=["latency_ms"], by="sdk_version")

On the way from a slice string to an answer:

- `language` reads the string into `conditions`; `literals` says what a value is: text, a number, a version
- `period` reads `--since` and `--until`
- `selection` turns conditions into SQL with bound parameters; `reader` is the one place that runs it
- `order` looks up versions and puts the condition that few traces satisfy first
- `summary`, `series`, `latest`, `compare`, `tags`, `export`, `trace`, `objects` ask one question each; `significance` says
  which differences are more than chance; `events` nests LLM events; `answers` is what they return
- `statistics` asks about deployments of models; `features` and `performance` add up, `deployments` is what it returns
- `explorer` puts them behind one class, and `notebook` behind the chain that starts at `tailrace.connect`

Every answer is the same before and after ClickHouse merged its parts, and however often a line arrived: rows are
told apart by the sort key of their table, never by how often they occur. No query uses FINAL.
"""

from tailrace.explorer.answers import SliceReport, TraceReport, TraceRow
from tailrace.explorer.explorer import Explorer
from tailrace.explorer.language import parse_slice
from tailrace.explorer.objects import ObjectPayload
from tailrace.explorer.period import Period

__all__ = ["Explorer", "ObjectPayload", "Period", "SliceReport", "TraceReport", "TraceRow", "parse_slice"]
