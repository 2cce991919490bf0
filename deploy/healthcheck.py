"""Exits 0 if the server in this container answers /health, else 1: what the images' probe runs.

Plain sockets by the standard library, since a proxy set for the container must not be asked. It
knows nothing of engines: that is /ready's part.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

PATIENCE_S = 3.0


def healthy(port: int, host: str = "127.0.0.1") -> bool:
    """Whether the server on that port answers 200 in time."""
    connection = HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not healthy(int(os.environ.get("PORT", "8000"))))
