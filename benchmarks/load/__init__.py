"""A fleet to test a server with: simulated devices that speak the real protocol, at a bounded rate, on loopback only.

``python -m benchmarks.load --help`` says how to run it; ``benchmarks/soak.py`` runs it for ten minutes.
"""
