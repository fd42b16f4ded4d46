"""Writes the tables that code decides into README.md and docker/README.md: the service's settings,
and which accelerator packages go together.
"""

from pathlib import Path

from rag import accelerator, settings

ROOT = Path(__file__).parents[1]
TABLES = {"settings": settings.table(), "accelerators": accelerator.table()}
for path in (ROOT / "README.md", ROOT / "docker" / "README.md"):
    text = path.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
    path.write_text(text, encoding="utf-8")
