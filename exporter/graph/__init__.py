"""ONNX graphs: features with context, the fused forest, calibration, and the one graph that holds all of them."""
