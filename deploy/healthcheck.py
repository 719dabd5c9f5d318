"""Whether the process of this container lives: 0 when its /livez says so, or when it serves none."""

import os
import sys
import urllib.request

address = os.environ.get("TAILRACE_METRICS_ADDRESS", "")
if address:
    port = address.rpartition(":")[2]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=4) as answer:
            sys.exit(answer.status != 200)
    except OSError as error:
        sys.exit(f"{address}: {error}")
