"""The rules that ship inside JAX, Optax, Equinox, Lineax and Optimistix, beside references and mpmath."""
