"""A cross-encoder's folder for ONNX Runtime: `python -m rag.models.export_reranker FROM TO`."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BuildError, ConfigurationError, RagError
from rag.models import layout
from rag.models.onnx_graph import write_graph
from rag.models.onnx_reranker import GRAPH, OnnxReranker
from rag.models.torch_reranker import TorchReranker

TOLERANCE = 1e-4
"""How far a logit of the export may lie from PyTorch's."""
_PROBES = (
    "Hold the power button for ten seconds to reset the lamp.",
    "비밀번호는 90일마다 바꿔야 합니다.",
    "",
    "It has a warranty of three years. " * 40,
)


def export_reranker(source: Path, target: Path) -> float:
    """Writes the cross-encoder in `source` to the new folder `target`, and verifies it there.

    `target` gets config.json, the tokenizer's files with a tokenizer.json, the limits, and
    onnx/model.onnx in float32: int64 (batch, sequence) in, the output `logits` float32 (batch, 1).
    Returns the largest difference between the logits of both runtimes over a few pairs. Raises
    ConfigurationError where `target` is not empty or the model cannot be exported, BuildError
    where that difference is above 1e-4.
    """
    if target.exists() and any(target.iterdir()):
        raise ConfigurationError(f"{target} is not empty; export the reranker into a new folder")
    original = TorchReranker(source)
    target.mkdir(parents=True, exist_ok=True)
    for name in _copied(source):
        shutil.copyfile(source / name, target / name)
    (target / "tokenizer.json").write_text(original.tokenizer.to_json(), encoding="utf-8")
    (target / GRAPH).parent.mkdir()
    module = _logits_module(original.model.model)
    write_graph(module, original.inputs, ("logits",), target / GRAPH, original.name)
    return _verify(original, OnnxReranker(target))


def _copied(source: Path) -> list[str]:
    stated = ("config.json", "config_sentence_transformers.json", *layout.TRANSFORMER_CONFIGS)
    names = (*stated, *layout.TOKENIZER_FILES)
    return [name for name in names if (source / name).is_file()]


def _logits_module(classifier: Any) -> Any:
    """`classifier` as a torch module from a map of inputs to its logits alone."""
    import torch

    class Graph(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the checker
        def __init__(self) -> None:
            super().__init__()
            self.classifier = classifier

        def forward(self, inputs: dict[str, Any]) -> Any:
            return self.classifier(**inputs, return_dict=True).logits

    return Graph().eval()


def _verify(original: TorchReranker, exported: OnnxReranker) -> float:
    # Of the logits: a sigmoid would hide what happens to those that are large.
    for reranker in (original, exported):
        reranker.config = replace(reranker.config, activation="identity")
    differences = [
        np.abs(original.score(query, _PROBES) - exported.score(query, _PROBES)).max()
        for query in ("How do I reset the lamp?", "비밀번호는 언제 바꾸나요?")
    ]
    largest = float(max(differences))
    if not largest <= TOLERANCE:
        raise BuildError(
            f"{original.name} came out of the export with logits that differ by {largest:.2g};"
            " use the torch backend for it"
        )
    return largest


def main(arguments: list[str]) -> int:
    """Exports as the command line says; the exit code."""
    if len(arguments) != 2:
        print("usage: python -m rag.models.export_reranker SOURCE TARGET", file=sys.stderr)
        return 2
    try:
        difference = export_reranker(Path(arguments[0]), Path(arguments[1]))
    except RagError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[1]}: logits differ from PyTorch's by at most {difference:.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
