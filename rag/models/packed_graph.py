"""A transformer over the tokens of a batch without its padding, for ONNX Runtime.

Embeddings, projections, feed-forward layers and norms are computed for the tokens alone, one after
the other; only attention sees the batch in rows. So texts of different lengths share one run, and
cost what their tokens cost. The idea is Effective Transformer's (ByteDance, 2020); see also
ByteTransformer, arXiv 2210.03052. Attention is ONNX Runtime's own operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rag.models.encoder import OFFSET_POSITIONS

PACKABLE = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
"""Types of models whose tokens know their position only by a number that can be given."""
_NAME = "rag_packed"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a batch's tokens lie: `tokens` (t,) their places in the padded batch, row after row;
    `places` (n * longest,) for each place its token, any at all where there is none; `mask` int32
    (n, longest).
    """

    tokens: Any
    places: Any
    mask: Any
    rows: Any
    longest: Any


class PackedTransformer:
    """Calls `transformer` on packed tokens; the result is padded again, (n, longest, hidden).

    What stands in padded places of the result is not zero, and not to be used.
    """

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        config = transformer.config
        offset = config.model_type in OFFSET_POSITIONS
        self._first_position = int(config.pad_token_id) + 1 if offset else 0
        self._layout: _Layout | None = None

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        layout = self._layout = _lay_out(inputs["attention_mask"])
        given = {
            name: values.reshape(-1).index_select(0, layout.tokens)[None]
            for name, values in {**inputs, "position_ids": self._positions(layout)}.items()
            if name != "attention_mask"
        }
        states = self._transformer(**given, return_dict=True).last_hidden_state[0]
        return _padded(states, layout)

    def _positions(self, layout: _Layout) -> Any:
        import torch

        first = self._first_position
        row = torch.arange(first, layout.longest + first, device=layout.mask.device)
        return row.expand(layout.rows, layout.longest)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Lets the transformer attend within rows meanwhile; as before afterwards."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register(_NAME, self._attend)
        before = self._transformer.config._attn_implementation
        self._transformer.set_attn_implementation(_NAME)
        try:
            yield
        finally:
            self._transformer.set_attn_implementation(before)

    def _attend(
        self,
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        scaling: float,
        **_: Any,
    ) -> tuple[Any, None]:
        """Of (1, heads, t, size) each: (1, t, heads, size)."""
        import torch

        layout = self._layout
        if layout is None:
            raise RuntimeError("attention is computed within a call")
        _, heads, tokens, size = query.shape
        width = heads * size
        rows = [
            _padded(part.transpose(1, 2).reshape(tokens, width), layout)
            for part in (query, key, value)
        ]
        attended = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (*rows, None, layout.mask),
            {"num_heads": int(heads), "scale": float(scaling)},
            dtype=query.dtype,
            shape=(layout.rows, layout.longest, width),
            version=1,
        )
        packed = attended.reshape(-1, width).index_select(0, layout.tokens)
        return packed.reshape(1, tokens, heads, size), None


def _lay_out(mask: Any) -> _Layout:
    import torch

    flat = mask.reshape(-1)
    return _Layout(
        tokens=torch.nonzero(flat).squeeze(1),
        places=(flat.cumsum(0) - 1).clamp(min=0),
        mask=mask.to(torch.int32),
        rows=mask.shape[0],
        longest=mask.shape[1],
    )


def _padded(states: Any, layout: _Layout) -> Any:
    """(t, width) to (n, longest, width)."""
    width = states.shape[-1]
    return states.index_select(0, layout.places).reshape(layout.rows, layout.longest, width)
