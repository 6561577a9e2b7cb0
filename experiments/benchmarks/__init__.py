"""Benchmarks: what is measured in one run, beside what else can be used for it."""
