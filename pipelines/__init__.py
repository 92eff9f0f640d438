"""Generation: from a frozen specification to a finished picture."""
