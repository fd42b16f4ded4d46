"""Documents into passages, cut along their structure and measured in the encoder's own tokens.

`chunker.py` holds the rules together; `sections.py` finds what belongs under one heading,
`cutting.py` chooses where to cut it, `context.py` writes what is put before each passage, and
`tokens.py` measures.
"""

from indexer.chunking.chunker import Chunker, ChunkerOptions

__all__ = ["Chunker", "ChunkerOptions"]
