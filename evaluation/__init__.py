"""Measuring pictures: what was asked, what the judge reads, how sure that makes us."""
