"""Integrators of the equations of motion, one method per file, each a pure function of arrays. Data
generation and simulation use them."""
