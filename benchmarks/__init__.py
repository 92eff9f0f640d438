"""Measurements: each writes what it measured, with the command, the machine and the commit."""
