"""Serve the loopback provider until interrupted: `python -m tests.provider_server --port 9000`."""

import argparse
import sys
import time

from tests.provider_server import provider_server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.provider_server")
    parser.add_argument("--port", type=int, default=0)
    with provider_server(parser.parse_args().port) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
