"""What the indexer's image starts: every command of `rag-indexer`, and those of `rag` too.

A platform that processes gives arguments and no verb; they are those of `process`. An endpoint
may be made from the image that trained, so `serve` works as well.
"""

from __future__ import annotations

import sys

SERVING = ("serve", "search", "ask")


def main() -> None:
    """Runs the verb, or `process` where the first argument is an option."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in SERVING:
        from rag.__main__ import main as run
    else:
        from indexer.__main__ import main as run
    if verb.startswith("-") and verb not in ("-h", "--help"):
        sys.argv.insert(1, "process")
    run()


if __name__ == "__main__":
    main()
