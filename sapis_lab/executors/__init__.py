"""Executors: where jobs run, one module per kind."""
