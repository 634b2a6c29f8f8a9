"""From a user's rows to paired batches: sources -> check -> chat (tokens) -> streams (pairing) -> collate."""
