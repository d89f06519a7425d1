"""Studies: a lattice of points, one process each, and the table they end in.

`study` holds the settings, `points` the lattice, `plan` what it will cost, `engine` runs points, `road` the
whole way from a study's name to its report. `folder`, `lock` and `manifest` are the results folder seen from
its files alone, and import nothing heavy.
"""
