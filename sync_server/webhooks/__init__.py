"""Webhooks: what happened here, told to other systems, signed, at least once."""
