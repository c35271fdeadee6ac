"""Phone numbers as personal data: hashed and masked, the key of the hash, and forgetting."""
