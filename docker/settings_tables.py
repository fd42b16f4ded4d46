"""Writes the table of the service's settings into README.md and docker/README.md."""

import re
from pathlib import Path

from rag import settings

ROOT = Path(__file__).parents[1]
for path in (ROOT / "README.md", ROOT / "docker" / "README.md"):
    text = path.read_text(encoding="utf-8")
    table = f"<!-- settings -->\n{settings.table()}<!-- /settings -->"
    path.write_text(
        re.sub(r"<!-- settings -->\n.*?<!-- /settings -->", lambda _: table, text, flags=re.DOTALL),
        encoding="utf-8",
    )
