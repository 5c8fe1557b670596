"""The morning report: figures, charts, page."""
