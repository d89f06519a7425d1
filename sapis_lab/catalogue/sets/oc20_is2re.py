"""OC20, initial to relaxed structure and energy."""

from sapis_lab.catalogue._base import Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import CHANUSSOT_2021

_ADDRESS = "https://dl.fbaipublicfiles.com/opencatalystproject/data"

SET = PublicSet(
    title="OC20, initial structure to relaxed energy and structure (IS2RE, IS2RS)",
    holds="about 466,000 relaxations of adsorbates on surfaces, periodic",
    labels=(
        Label(name="adsorption energy", unit="eV", key="y_init, y_relaxed"),
        Label(name="relaxed positions", unit="Å", key="pos_relaxed"),
    ),
    brief="E, relaxed positions",
    level="RPBE (VASP)",
    licence="CC-BY 4.0",
    citations=(CHANUSSOT_2021,),
    homepage="https://opencatalystproject.org",
    files=(
        OfficialFile(
            part="lmdbs",
            url=f"{_ADDRESS}/is2res_train_val_test_lmdbs.tar.gz",
            path="is2res_train_val_test_lmdbs.tar.gz",
            about_bytes=8.1e9,
            md5="cfc04dd2f87b4102ab2f607240d25fb1",
            unpack=True,
            gives=("**/*.lmdb",),
            about="initial and relaxed structures, 97 GB unpacked",
            asked=True,
        ),
        OfficialFile(
            part="trajectories",
            url=f"{_ADDRESS}/is2res_train_trajectories.tar",
            path="is2res_train_trajectories.tar",
            about_bytes=109e9,
            md5="9e3ed4d1e497bfdce4472ee70455edef",
            unpack=True,
            gives=("is2res_train_trajectories/**/*.extxyz.xz",),
            about="every step of the training relaxations",
            asked=True,
        ),
    ),
    notes=("the LMDB files are pickles: reading them runs code, which no reader here does",),
    sources=("DATASET.md of the Open Catalyst Project (addresses, sizes, md5)",),
)
