"""The cell: its edges, what a search space puts on them, what is decided, and the DAG that runs."""
