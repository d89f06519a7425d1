"""Observables as pure functions of arrays: what a trajectory, a set of energies or a crystal says in the
units of experiment.

`statistics` blocks and divergences; `structure` distances, angles, torsions, sizes; `transport` paths through
periodic boundaries, mean squared displacements, diffusion; `spectra` vibrational and infrared; `kinetics`
time scales; `minima` relaxed molecules and crystals; `vibrations` Hessians and normal modes; `crystals`
equation of state and elastic constants; `phonons` through phonopy; `physicality` what no potential should do.
What needs energies takes a function `predict` (`sapis_lab.observables.surfaces`), which a trained potential
or an oracle is.
"""
