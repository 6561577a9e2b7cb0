"""The exercises, one module for each section of the chapter."""
