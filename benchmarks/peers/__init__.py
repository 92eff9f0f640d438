"""Servers of another design, to be measured beside ours: whole programs, each run on its own."""
