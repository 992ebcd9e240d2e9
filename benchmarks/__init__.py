"""What the project promises to reach, measured: one question per script, both sides in one run.

``make bench`` runs them all; ``python -m benchmarks forest --quick`` runs one, small.
"""
