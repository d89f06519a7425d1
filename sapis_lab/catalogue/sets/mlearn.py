"""mlearn."""

from sapis_lab.catalogue._base import Label, PublicSet, github_files
from sapis_lab.catalogue.sets._papers import ZUO_2020

SET = PublicSet(
    title="mlearn",
    holds=(
        "crystals of Li, Si, Ge, Ni and Cu of 2 to 108 atoms: strained, at several temperatures, "
        "surfaces, vacancies; "
        "214 to 263 training and 25 to 31 test frames each"
    ),
    labels=(
        Label(
            name="energy",
            unit="eV",
            key="energy",
            note="total; in the files of Ni and Cu total_energy is per atom",
        ),
        Label(name="forces", unit="eV/Å", key="forces"),
        Label(
            name="stress",
            unit="kB",
            key="virial_stress",
            note="in the order xx yy zz xy yz zx, with VASP's sign",
        ),
    ),
    level="PBE (VASP)",
    licence="BSD-3",
    citations=(ZUO_2020,),
    homepage="https://github.com/materialsvirtuallab/mlearn",
    files=(
        *github_files(
            "materialsvirtuallab/mlearn",
            "10c427a5480c6281c15c64efaf869b03be04818f",
            """
Li/training.json 2446522 1cac01475c5a4fb85771ee1fd23366a6b8abfb9891e0c9e088b6e37228e147b3
Li/test.json 279684 554d0ce60b35a07b357be3a80bf04f68eb8fc97b5a88328caf08c860b5e9b260
Si/training.json 2669946 ae6d4b0a65b00e0fcf7ba0a6fad366716710d2f0d21d70199203089c6866b500
Si/test.json 309803 d452b30a89f23bff76f7cc529b7b6c2d159ea81ccd5a4599fb1a18207654fa91
Ge/training.json 2796663 43dee02009a5167f94c7aafce19051222bcfc328c46181750cc2a2018187ca00
Ge/test.json 311848 737ea6159c9dd27ebee7fb8ffae22f15e20466884927771248ca4f5b2cd3f093
""",
            below="data",
        ),
        *github_files(
            "usnistgov/alignn",
            "a8be0bed552ac70c14b8db825a48dbca1d14ad8d",
            """
Ni/id_prop.json 2581216 a66cfc5211785133c5f6c8e958fb6cca3f7dcaac92aed579d23f033dd7852156
Cu/id_prop.json 2529524 da912b6e4daf7eecd85f5873c91fa7f3c63e2c339596a420af4a89147218b76e
""",
            below="alignn/examples/sample_data_ff/mlearn_data",
        ),
    ),
    notes=(
        "3 to 9 test frames per element are training frames turned: the kind mlearn also scores without them",
        "Ni and Cu are taken from the copy in alignn (a work of NIST), which has the test frames twice",
    ),
    sources=("the two repositories at these commits",),
)
