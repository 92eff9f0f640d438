"""Who may ask, how often, and for what again: keys, quotas, idempotency, signed links."""
