"""A sentence-transformers model as one ONNX graph, from token ids to unit vectors."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError
from rag.models.encoder import EncoderConfig
from rag.models.packed_graph import ROWS, PackedTransformer
from rag.models.torch_forward import model_inputs

OUTPUTS = ("token_embeddings", "sentence_embedding")
ONE_FILE_BYTES = 1_900_000_000
"""Weights above this go into a file of their own: protobuf ends at 2 GiB."""
_BLOCK = 64
_INT8_PRODUCTS = 4
"""ONNX Runtime's `accuracy_level` for products of 8-bit integers."""


def export_graph(
    model: Any, config: EncoderConfig, path: Path, packed: PackedTransformer | None = None
) -> None:
    """Writes the float32 graph of a SentenceTransformer to `path`; with `packed` one that computes
    no padding, in operators of ONNX Runtime's own.

    Inputs are int64 (batch, sequence): input_ids, attention_mask, token_type_ids where the model
    takes them, and pooling_mask where prompts are left out of the pooling. A packed graph also has
    attention_rows, int64 of a shape of its own (see `rag.models.batches.attention_rows`). Outputs
    are float32: token_embeddings (batch, sequence, hidden), not of a packed graph, and
    sentence_embedding (batch, dimension), pooled, projected, truncated and normalised. Raises
    ConfigurationError for a model that cannot be traced.
    """
    names = list(model_inputs(model))
    if not config.include_prompt:
        names.append("pooling_mask")
    module = _graph_module(model, config, packed)
    if packed is None:
        write_graph(module, names, OUTPUTS, path, config.name)
        return
    with packed.attending():
        write_graph(module, [*names, ROWS], OUTPUTS[1:], path, config.name)


def write_graph(
    module: Any, inputs: Sequence[str], outputs: Sequence[str], path: Path, name: str
) -> None:
    """Traces a torch module over a map of int64 inputs into `path`: (batch, sequence) but for
    attention_rows.

    Raises ConfigurationError, naming the model `name`, for a module that cannot be traced.
    """
    import onnx
    import torch

    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    own = {0: torch.export.Dim("rows"), 1: torch.export.Dim("width")}
    # Two of each: a size of one would be taken for a constant.
    example = {key: torch.ones((2, 5), dtype=torch.int64) for key in inputs}
    size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    with _quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                module,
                kwargs={"inputs": example},
                f=str(path),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes={"inputs": {key: own if key == ROWS else shape for key in inputs}},
                external_data=size > ONE_FILE_BYTES,
                verbose=False,
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigurationError(f"{name} cannot be exported to ONNX: {reason}") from error
    # Traces of this program's paths and line numbers are of no use in a bundle.
    graph = onnx.load(str(path), load_external_data=False)
    _strip(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))


def quantize_graph(source: Path, target: Path) -> None:
    """Writes `source` with 8-bit weights: one scale per block of 64 along the inner dimension.

    Activations are scaled by blocks too, row by row, while the graph runs. One scale for a whole
    batch would be faster by a third, but loses several times more of the cosine, most of it on
    Korean text, and makes a vector depend on its neighbours in the batch.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    large = source.with_name(source.name + ".data").exists()
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        tables = Path(scratch) / "tables.onnx"
        quantize_dynamic(
            source,
            tables,
            op_types_to_quantize=["Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )
        blocks = DefaultWeightOnlyQuantConfig(
            block_size=_BLOCK, is_symmetric=True, accuracy_level=_INT8_PRODUCTS, bits=8
        )
        quantizer = MatMulNBitsQuantizer(str(tables), algo_config=blocks)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target), use_external_data_format=large)


def _graph_module(model: Any, config: EncoderConfig, packed: PackedTransformer | None) -> Any:
    """`model` with pooling, truncation and norm, as one torch module over a map of inputs."""
    import torch

    class Graph(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the checker
        def __init__(self) -> None:
            super().__init__()
            self.transformer = model[0].auto_model
            self.steps = torch.nn.ModuleList(list(model)[1:])

        def forward(self, inputs: dict[str, Any]) -> Any:
            mask = inputs["attention_mask"]
            pooled = inputs.get("pooling_mask", mask)
            given = {name: value for name, value in inputs.items() if name != "pooling_mask"}
            if packed is None:
                tokens = self.transformer(**given, return_dict=True).last_hidden_state
            else:
                tokens = packed(given)
            features = {"token_embeddings": tokens, "attention_mask": mask}
            for step in self.steps:
                if type(step).__name__ == "Pooling":
                    features["sentence_embedding"] = _pool(
                        features["token_embeddings"], mask, pooled, config.pooling_modes
                    )
                else:
                    features = step(features)
            kept = features["sentence_embedding"][:, : config.dimension]
            unit = torch.nn.functional.normalize(kept, p=2.0, dim=-1)
            return (tokens, unit) if packed is None else unit

    return Graph().eval()


def _pool(tokens: Any, mask: Any, pooled: Any, modes: tuple[str, ...]) -> Any:
    """sentence-transformers' pooling modes, side by side: float (batch, modes * hidden).

    `mask` and `pooled` are int64 (batch, sequence): what is text, and what of it is pooled.
    """
    import torch

    weights = pooled.unsqueeze(-1).to(tokens.dtype)
    places = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)

    def mean(weight: Any, power: float = 1.0) -> Any:
        return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-9) ** power

    def at(place: Any) -> Any:
        index = place.view(-1, 1, 1).expand(-1, 1, tokens.shape[2])
        return torch.gather(tokens, 1, index).squeeze(1)

    vectors = []
    for mode in modes:
        if mode == "mean":
            vectors.append(mean(weights))
        elif mode == "mean_sqrt_len_tokens":
            vectors.append(mean(weights, 0.5))
        elif mode == "weightedmean":
            vectors.append(mean(weights * mask.cumsum(1).unsqueeze(-1).to(tokens.dtype)))
        elif mode == "max":
            vectors.append(tokens.masked_fill(weights == 0, float("-inf")).amax(1))
        elif mode == "cls":
            before_end = (tokens.shape[1] - places) * pooled
            vectors.append(at(tokens.shape[1] - before_end.amax(1)))
        elif mode == "lasttoken":
            vectors.append(at((places * pooled).amax(1)))
    return torch.cat(vectors, dim=-1)


def _strip(graph: Any) -> None:
    """Clears documentation and tracing metadata, in place, wherever a graph keeps any."""
    del graph.metadata_props[:]
    for part in (graph.graph, *graph.functions):
        lists = [part.node, part.value_info]
        if part is graph.graph:
            lists += [part.initializer, part.input, part.output]
        for holder in (part, *(item for items in lists for item in items)):
            del holder.metadata_props[:]
            holder.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the exporter and the quantiser print, log and warn while they work."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
