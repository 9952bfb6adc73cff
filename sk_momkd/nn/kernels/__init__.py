"""Compiled loops (numba) of the graph encoder.

Rows are float32, or bfloat16 held as uint16; all sums are float32. A kernel works on the rows
``rows[0]:rows[1]``, so that a caller can distribute the rows over threads. Inner loops run over
contiguous one-dimensional slices, which the compiler turns into vector instructions.
"""
