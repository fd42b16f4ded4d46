"""The FAISS leg: inner products with unit vectors, exact or by an index that finds most."""

from rag.index.dense.build import build_dense
from rag.index.dense.choice import Built, build_chosen
from rag.index.dense.leg import DenseLeg

__all__ = ["Built", "DenseLeg", "build_chosen", "build_dense"]
