"""Files of requests that are answered at leisure, and never lost."""
