"""Rendering of reports: one document for every report, as text, on a terminal, as data, and parts of a page."""
