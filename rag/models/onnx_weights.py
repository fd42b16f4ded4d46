"""The weights of ONNX graphs in one file beside them, each once, which the runtime maps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

_LEAST_BYTES = 1024
"""Smaller constants stay in their graph."""
_PAGE = 4_096
"""Weights begin at multiples of this, so that each can be mapped."""


def share_weights(graphs: Sequence[Path], weights: Path) -> None:
    """Moves the weights of `graphs` into the new file `weights`, in the same folder.

    Weights with equal bytes are stored once, whichever graphs they are of. Files that a graph kept
    its weights in before are removed.
    """
    import onnx
    from onnx.external_data_helper import set_external_data

    places: dict[bytes, int] = {}
    end = 0
    with weights.open("wb") as file:
        for path in graphs:
            before = path.with_name(path.name + ".data")
            model = onnx.load(str(path))
            for tensor in model.graph.initializer:
                if not tensor.HasField("raw_data") or len(tensor.raw_data) < _LEAST_BYTES:
                    continue
                data = tensor.raw_data
                digest = hashlib.sha256(data).digest()
                if digest not in places:
                    end = -(-end // _PAGE) * _PAGE
                    file.seek(end)
                    file.write(data)
                    places[digest] = end
                    end += len(data)
                set_external_data(tensor, weights.name, offset=places[digest], length=len(data))
                tensor.ClearField("raw_data")
            path.write_bytes(model.SerializeToString(deterministic=True))
            before.unlink(missing_ok=True)
