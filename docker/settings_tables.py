"""Writes the table of the service's settings into README.md and docker/README.md."""

from pathlib import Path

from rag import settings

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"
for path in (ROOT / "README.md", ROOT / "docker" / "README.md"):
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}{settings.table()}{END}{after}", encoding="utf-8")
