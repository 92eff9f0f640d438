"""Execution backends: the same networks, computed in other ways."""
