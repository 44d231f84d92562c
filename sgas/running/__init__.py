"""Searches and trainings: the loop, its two bodies, run folders, and what a run says meanwhile."""
