"""Losses that several trainers share; none of them knows a network."""
