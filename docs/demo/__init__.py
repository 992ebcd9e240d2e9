"""`make demo`: the whole journey, from fleet telemetry to a dashboard, in one run."""
