"""What every monitor stands on: the interface, batching, calibration; knows no kind by name."""
