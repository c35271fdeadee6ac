"""Phone numbers as personal data: hashing, masking, the key of the hash, and erasure."""
