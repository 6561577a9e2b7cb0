"""Numerics shared by the checkers: precision, comparison of arrays, and the interpreter of jaxprs."""
