"""Stella Edge on the device: pull signed bundles, verify them, score readings offline, upload what was found.

Importing this package loads nothing heavy; every room is imported by its own name::

    from edge_runtime.scoring import Scorer
"""

__version__ = "0.1.0"
