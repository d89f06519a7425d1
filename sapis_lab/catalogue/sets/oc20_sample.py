"""Ten relaxations of OC20."""

from sapis_lab.catalogue._base import Label, PublicSet, github_files
from sapis_lab.catalogue.sets._papers import CHANUSSOT_2021

SET = PublicSet(
    title="OC20, ten relaxations (of fairchem's tests)",
    holds="10 adsorbates on surfaces of 33 to 97 atoms, periodic, 965 frames: all steps of relaxations",
    labels=(
        Label(name="energy", unit="eV", note="total, not less the reference"),
        Label(name="forces", unit="eV/Å", note="without constraints where they are read so"),
    ),
    level="RPBE (VASP)",
    licence="CC-BY 4.0",
    citations=(CHANUSSOT_2021,),
    homepage="https://opencatalystproject.org",
    folder="oc20",
    files=github_files(
        "FAIR-Chem/fairchem",
        "c18e4215194fae267dfbc7e0c3a5f357f31d13d6",
        """
random1000100.traj 882121 d3dc486f06e602d85d7b39b41674e8849e185403b8b57dbe87b652d8c6236263
random1000120.traj 827188 eb9964fe0b4be72ba507f267c7a1807fbffe78c2d92ba1dab843e81978aa44b6
random1000188.traj 765976 1798b71a9e7f37371e81bf5343d12d6e5a9a305b643b0c533a37f9b3fe39b9f8
random1000142.traj 571932 4d5fb20e759a2e9bc97cc4607e2c16bc879064e6cb5524486cf89d98fba984b6
random1000194.traj 529705 ff4e60dce80acf587eb56436ab9efd7cb26212863d29fb8636e6c04b13b16656
random1000163.traj 297355 9e76a40e2410c44e5c27df1c95527fe76145c4008ce300ce45827f68a1542e9e
random1000156.traj 285722 513581b497de5587d0edbef52060991ae4e80d6914f3e807bea692c63804e184
random1000164.traj 1005945 38b84514f201989b3e486a40679c1c448da483850e28bad24453f9d9e032e793
random1000161.traj 1265360 7721306641d2cf1e2a1fc4505fc45cef7cb7eb7e957c7e985ecf04b9f692ef36
random1000187.traj 1452918 2256ab3c7955d52bb7c29307afbb461883fe61ffdd0de5324cd33679640df9b5
""",
        below="ocpmodels/common/efficient_validation/debug_data",
    ),
    notes=(
        "trajectories of ASE; all tags are 0, and one relaxation (random1000187) has not converged",
        "older than the release of 2021, and since removed from the repository: an example, no benchmark",
    ),
    sources=("the repository at this commit",),
)
