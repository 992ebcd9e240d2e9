"""Smaller forms of a trained detector: 8-bit codebooks and integer tensors for forests, integer weights for networks.

Each form is a candidate. What it costs and what it keeps is measured, never assumed (``exporter.candidates``).
"""
