"""The workshop: fleet telemetry in, one signed bundle per cohort out."""
