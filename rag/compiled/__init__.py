"""Inner loops as machine code, from functions in a subset of Python: see `kernel`."""
