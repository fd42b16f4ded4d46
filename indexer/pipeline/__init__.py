"""From documents to chunks with vectors: stages over batches, in one bounded pipeline.

`reading.py` fetches documents, `stages.py` is what is done to a batch of them (a pure function,
run in the processes of `workers.py`), `records.py` how its result travels and lies on disk,
`spool.py` and `vectors.py` keep results so that a killed build goes on from them, `embedding.py`
feeds the encoder, and `run.py` joins them.
"""
