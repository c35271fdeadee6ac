"""The days: one Parquet file each, which is the dataset and all that is remembered of it."""
