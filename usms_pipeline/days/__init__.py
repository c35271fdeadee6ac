"""The days: one Parquet file each, which is the dataset and the whole state."""
