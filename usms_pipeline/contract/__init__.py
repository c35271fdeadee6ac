"""What everything else agrees on: columns, buckets, metrics, polling times, errors, words."""
