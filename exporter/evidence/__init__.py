"""Choosing by evidence: train several specifications on the same telemetry and say which one is worth shipping.

``grid`` lists the specifications, ``gathering`` settles what all are judged by, ``trial`` trains and judges one of
them, ``faults`` makes something to find where nobody has labelled anything, ``ranking`` puts them in order with their
cost on a device beside, ``plot`` and ``winner`` write the outcome down. Nothing here packs or signs::

    comparison = compare_specs(specs, fleet, progress=None)
    comparison.winner.spec
"""

from __future__ import annotations
