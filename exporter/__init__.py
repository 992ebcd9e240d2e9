"""The workshop: fleet telemetry in, one signed bundle per cohort out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.graph.forest import forest_to_onnx

__all__ = ["forest_to_onnx"]


def __getattr__(name: str) -> Any:
    """Load ``forest_to_onnx`` on first use, so that ``import exporter`` loads neither onnx nor sklearn."""
    if name == "forest_to_onnx":
        from exporter.graph.forest import forest_to_onnx

        return forest_to_onnx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
