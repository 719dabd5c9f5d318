"""How lines travel by HTTP from a logger to a running `tailrace up`: the words that both sides use.

    POST /tailrace/v1/lines
    Content-Type: application/x-ndjson
    Authorization: Bearer …            where the server has a token
    Idempotency-Key: 0192…             the same for every attempt to send the same lines

    200 {"lines":1}                    they are on the server's disk

Sent again under its key, a request adds nothing while the server remembers the key. A server that was restarted in
between takes the lines a second time, and stores them once all the same: equal lines are one row.
"""

from __future__ import annotations

LINES_PATH = "/tailrace/v1/lines"
KEY_HEADER = "Idempotency-Key"
CONTENT_TYPE = "application/x-ndjson"
