"""Going on from the version before: what is kept of it, and what is not made twice.

`state.py` is what a bundle says of the objects it was made from, `plan.py` compares that with
what the source lists now, `previous.py` gives documents and vectors of the bundle before, and
`vector_cache.py` vectors of any build before; `vector_objects.py` is what lies in such a cache, and
`vector_compaction.py` keeps it small.
"""
