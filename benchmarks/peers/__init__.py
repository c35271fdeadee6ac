"""The same job done by others, each a program of its own: ``python -m benchmarks.peers.<name>``.

All take ``SOURCE URL FOLDER``: ask for every session of the source file and leave the receipts as
Parquet (where the tool writes any) and in a DuckDB table with one row a receipt.
"""
