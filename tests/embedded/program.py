"""A stand-in for the `parley` command: starts in milliseconds and says what it was given."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"model": "demo", "model_reason": "no provider key is set"}).encode()
        needed = os.environ.get("READY_NEEDS")
        self.send_response(200 if needed is None or Path(needed).exists() else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    role = sys.argv[1]
    given = {name: value for name, value in os.environ.items() if name.startswith(("PARLEY", "DATA", "REDIS"))}
    seen = Path(given["PARLEY_HOME"]) / f"seen-{role}.json"
    seen.with_suffix(".tmp").write_text(json.dumps(given))
    seen.with_suffix(".tmp").replace(seen)
    if os.environ.get("FAIL_ROLE") == role:
        sys.exit(f"{role} can't start here")
    if role == "serve":
        ThreadingHTTPServer((os.environ["PARLEY_HOST"], int(sys.argv[3])), Api).serve_forever()
    elif role != "migrate":
        time.sleep(600)


main()
