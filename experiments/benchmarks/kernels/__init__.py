"""The rules that ship inside JAX, Optax, Equinox, Flax, Lineax and Optimistix, beside references and mpmath."""
