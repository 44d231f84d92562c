"""What happens to runs when processes are killed, power fails, disks are full and files rot.

`python -m tests.torture NAME --n N --seed S` runs N cases; the programs are listed in `__main__`.
"""
