"""How cost grows: many networks at once, depth, width, precision, the first use and memory.

Every module is a command, ``python -m experiments.benchmarks.scaling.NAME``, that prints a table and writes every raw
figure as JSON; all of them measure in float32.
"""

import os

# Tuning of OpenBLAS that someone left in the environment slows NumPy's products, and a persistent cache would answer in
# the compiler's place. Both are read when the libraries load.
for _variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "JAX_COMPILATION_CACHE_DIR"):
    os.environ.pop(_variable, None)
