"""A transformer over the tokens of a batch without its padding, for ONNX Runtime.

Embeddings, projections, feed-forward layers and norms are computed for the tokens alone, one after
the other; only attention sees them in rows, of several short texts or a long one, in which a token
may attend to its own text alone. So texts of different lengths share one run, and cost what their
tokens cost. The ideas are Effective Transformer's (ByteDance, 2020; see also ByteTransformer, arXiv
2210.03052) and packing's (Krell et al., arXiv 2107.02027). Attention is ONNX Runtime's own
operator. Who runs the graph says what the rows are: `rag.models.batches.attention_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rag.models.encoder import OFFSET_POSITIONS

PACKABLE = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
"""Types of models whose tokens know their position only by a number that can be given."""
ROWS = "attention_rows"
"""The name of the input that says where attention sees each token."""
_FORBIDDEN = -1e9
_NAME = "rag_packed"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a batch's tokens lie: `tokens` (t,) their places in the padded batch, text after text;
    `places` (n * longest,) for each place its token, any at all where there is none.

    In attention `seen` (r * width,) is, for each place of its r rows, its token, any at all where
    there is none, `slots` (t,) for each token its place there, and `bias` float (r, 1, width,
    width) 0 where a place may attend to another.
    """

    tokens: Any
    places: Any
    texts: Any
    longest: Any
    seen: Any
    slots: Any
    bias: Any
    rows: Any
    width: Any


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
        layout = self._layout = _lay_out(inputs["attention_mask"], inputs[ROWS])
        given = {
            name: values.reshape(-1).index_select(0, layout.tokens)[None]
            for name, values in {**inputs, "position_ids": self._positions(layout)}.items()
            if name not in ("attention_mask", ROWS)
        }
        states = self._transformer(**given, return_dict=True).last_hidden_state[0]
        return _spread(states, layout.places, layout.texts, layout.longest)

    def _positions(self, layout: _Layout) -> Any:
        import torch

        first = self._first_position
        row = torch.arange(first, layout.longest + first, device=layout.tokens.device)
        return row.expand(layout.texts, layout.longest)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Lets the transformer attend within texts meanwhile; as before afterwards."""
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
        parts = [part.transpose(1, 2).reshape(tokens, width) for part in (query, key, value)]
        rows = [_spread(part, layout.seen, layout.rows, layout.width) for part in parts]
        attended = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (*rows, None, None, layout.bias),
            {"num_heads": int(heads), "scale": float(scaling)},
            dtype=query.dtype,
            shape=(layout.rows, layout.width, width),
            version=1,
        )
        packed = attended.reshape(-1, width).index_select(0, layout.slots)
        return packed.reshape(1, tokens, heads, size), None


def _lay_out(mask: Any, attention_rows: Any) -> _Layout:
    import torch

    texts, longest = mask.shape
    rows, width = attention_rows.shape
    flat = mask.reshape(-1)
    tokens = torch.nonzero(flat).squeeze(1)
    filled = attention_rows >= 0
    seen = attention_rows.clamp(min=0).reshape(-1)
    text = (tokens // longest).index_select(0, seen).reshape(rows, width)
    allowed = (text[:, :, None] == text[:, None, :]) & filled[:, None, :]
    return _Layout(
        tokens=tokens,
        places=(flat.cumsum(0) - 1).clamp(min=0),
        texts=texts,
        longest=longest,
        seen=seen,
        slots=_slots(attention_rows, tokens),
        bias=torch.where(allowed, 0.0, _FORBIDDEN)[:, None],
        rows=rows,
        width=width,
    )


def _slots(attention_rows: Any, tokens: Any) -> Any:
    """(t,): where attention sees each token."""
    import torch

    flat = attention_rows.reshape(-1)
    room = torch.nn.functional.pad(torch.zeros_like(tokens), (0, 1))
    ends = torch.where(flat >= 0, flat, tokens.shape[0])  # what is empty goes where nobody looks
    return room.scatter(0, ends, torch.arange(flat.shape[0], device=flat.device))[:-1]


def _spread(states: Any, places: Any, rows: Any, width: Any) -> Any:
    """(t, hidden) to (rows, width, hidden): for each place its token."""
    return states.index_select(0, places).reshape(rows, width, states.shape[-1])
