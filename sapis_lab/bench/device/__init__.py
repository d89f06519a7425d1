"""GEAT on the device of this machine, measured by one command within minutes (`sapis bench device`).  Imports
nothing."""
