"""When and what a search decides, and why: scores, schedule, strategies, records, replay."""
