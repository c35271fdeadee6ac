"""What everything else agrees on: columns, statuses, metrics, polling times, errors, words."""
