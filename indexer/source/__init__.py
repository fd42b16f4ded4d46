"""Where documents come from: a folder or an object store's prefix, read object by object.

`listing.py` finds the objects that are documents, `object_list.py` reads lists of them (SageMaker
manifests), `corpus.py` the rows of text corpora; `source.py` holds them together.
"""

from indexer.source.corpus import CorpusColumns
from indexer.source.listing import Item
from indexer.source.source import Source

__all__ = ["CorpusColumns", "Item", "Source"]
