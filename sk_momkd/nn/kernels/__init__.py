"""Compiled loops (numba) of the graph encoder.

Rows are float32, or bfloat16 kept as uint16; every sum is float32. A kernel works on the rows
``rows[0]:rows[1]``, so that a caller may share the rows among threads. Inner loops run over
contiguous one-dimensional slices, the form that the compiler turns into vector instructions.
"""
