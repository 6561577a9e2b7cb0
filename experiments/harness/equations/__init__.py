"""Equations that are written in plain text: found in prose, as LaTeX, as MathML."""
