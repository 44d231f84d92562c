"""Candidate operations; one module for each search space, one table in each."""
