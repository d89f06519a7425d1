"""Studies: a lattice of points, one process each, and the table they end in.

`study` holds the settings, `points` the lattice, `plan` what it will cost, `engine` runs points, `road` the
whole way from a study's name to its report. `folder` reads a results folder from its files alone and imports
nothing heavy.
"""
