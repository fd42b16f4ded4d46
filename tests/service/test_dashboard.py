"""The Grafana dashboard asks for nothing that the service does not tell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from rag.service.engine import Done
from rag.service.vector_cache import VectorCache

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana" / "dashboard.json"
BY_PROMETHEUS = {"instance", "le"}
"""Labels that the service does not set itself, or only in some samples."""


def test_every_metric_of_the_dashboard_exists_with_its_labels(launch: Any, endpoint: Any) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    expressions += [v["query"]["query"] for v in dashboard["templating"]["list"]]
    with launch(generator=endpoint.generator("fine")) as running:
        running.metrics.watch_cache(VectorCache(0))
        running.metrics.breaker("endpoint", "closed")
        running.metrics.swap_failed("BundleCorrupt")
        running.ask()
        running.ask(rerank=True, top_k=0)
        running.post(b'{"query": "lamp"}', "application/jsonlines")
        running.metrics.done(Done(degraded=["rerank: no time"]))
        text = running.client.get("/metrics").text
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                told.setdefault(sample.name, set()).update(sample.labels)
    asked = set()
    for expression in expressions:
        names = re.findall(r"\brag_\w+", expression)
        assert names, expression
        asked.update(names)
        labels = set(re.findall(r'(\w+)=~?"|(\w+)!="', expression))
        used = {a or b for a, b in labels}
        used |= {
            n.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for n in by.split(",")
        }
        for name in names:
            assert name in told, f"{expression}: {name} is not in /metrics"
            assert used - BY_PROMETHEUS <= told[name], expression
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert families == shown, "every metric of the service has a panel"
