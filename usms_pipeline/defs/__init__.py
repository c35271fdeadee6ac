"""The Dagster shell: a folder with a ``defs.yaml`` is an account; modules build what it asks for.

Nothing here knows how receipts are collected: every step is one call of ``pipeline.Pipeline``.
"""
