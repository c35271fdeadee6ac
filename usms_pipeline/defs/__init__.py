"""The Dagster side: a folder with a ``defs.yaml`` is an account; the modules build its assets.

Nothing here knows how receipts are collected: every step is one call of ``pipeline.Pipeline``.
"""
