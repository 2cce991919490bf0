"""What every decoder stands on: run, budget, trace, registry; knows no strategy by name."""
