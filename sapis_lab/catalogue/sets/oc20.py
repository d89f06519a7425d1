"""OC20, structure to energy and forces."""

from sapis_lab.catalogue._base import Label, OfficialFile, PublicSet
from sapis_lab.catalogue.sets._papers import CHANUSSOT_2021

_ADDRESS = "https://dl.fbaipublicfiles.com/opencatalystproject/data"
_FILES = {  # bytes, md5
    "s2ef_train_200K": (344e6, "f8d0909c2623a393148435dede7d3a46"),
    "s2ef_train_2M": (3.4e9, "953474cb93f0b08cdc523399f03f7c36"),
    "s2ef_train_20M": (34e9, "863bc983245ffc0285305a1850e19cf7"),
    "s2ef_train_all": (225e9, "12a7087bfd189a06ccbec9bc7add2bcd"),
    "s2ef_val_id": (1.7e9, "f57f7f5c1302637940f2cc858e789410"),
    "s2ef_val_ood_ads": (1.7e9, "431ab0d7557a4639605ba8b67793f053"),
    "s2ef_val_ood_cat": (1.7e9, "532d6cd1fe541a0ddb0aa0f99962b7db"),
    "s2ef_val_ood_both": (1.9e9, "5731862978d80502bbf7017d68c2c729"),
}

SET = PublicSet(
    title="OC20, structure to energy and forces (S2EF)",
    holds="adsorbates on surfaces, periodic, 200,000 to 134 million frames of relaxations; 55 elements",
    labels=(
        Label(
            name="energy",
            unit="eV",
            key="energy",
            note=(
                "total; the third column of the .txt is the reference, and total minus reference the "
                "adsorption energy"
            ),
        ),
        Label(name="forces", unit="eV/Å", key="forces"),
    ),
    level="RPBE (VASP)",
    licence="CC-BY 4.0",
    citations=(CHANUSSOT_2021,),
    homepage="https://opencatalystproject.org",
    files=tuple(
        OfficialFile(
            part=name,
            url=f"{_ADDRESS}/{name}.tar",
            path=f"{name}.tar",
            about_bytes=n_bytes,
            md5=md5,
            unpack=True,
            gives=(f"{name}/**/*.extxyz.xz",),
            asked=True,
        )
        for name, (n_bytes, md5) in _FILES.items()
    ),
    notes=(
        "chunks of .extxyz.xz with a .txt beside each (system, frame, reference energy); they stay "
        "compressed",
        "unpacked about five times as large: 1.7 GB of 200K, 1.1 TB of all",
    ),
    sources=("DATASET.md of the Open Catalyst Project (addresses, sizes, md5)",),
)
