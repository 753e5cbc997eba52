"""Speed and memory, measured as ratios in one run on one machine; and what the shipped weights are worth.

    python -m benchmarks.decode
    python -m benchmarks.transfer

Every program here prints what it measured and, with `--record`, adds a dated row with the machine to the table in its
Markdown file and a line to its JSON file. None of them is a test: machines are noisy.
"""
