"""The image's health check: exits with 0 where /ping is 200, on the port that the service has."""

import http.client
import os
import sys

port = os.environ.get("SAGEMAKER_BIND_TO_PORT") or os.environ.get("RAG_PORT") or "8080"
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=2)
try:
    connection.request("GET", "/ping")
    sys.exit(connection.getresponse().status != 200)
except OSError as error:
    sys.exit(f"no answer from port {port}: {error}")
