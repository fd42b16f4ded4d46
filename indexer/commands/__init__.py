"""The commands of `rag-indexer`, one file each."""
