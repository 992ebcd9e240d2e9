"""Scoring for clients that cannot run ONNX, with the device's own code, and a second release beside the first."""
