"""Ethanol and methanol of the BOTNet data sets."""

from sapis_lab.catalogue._base import Label, PublicSet, github_files
from sapis_lab.catalogue.sets._papers import BATATIA_2022

REPOSITORY, COMMIT = "davkovacs/BOTNet-datasets", "29e6d467317e4b5967b7ea5cbee54de953fa0d45"


SET = PublicSet(
    title="Ethanol and methanol, far from equilibrium (BOTNet data sets)",
    holds=(
        "1,000 training and 1,000 test frames of ethanol, 300 and 145 of methanol; dimers, H removal, "
        "normal modes"
    ),
    labels=(
        Label(name="energy", unit="eV", key="energy", note="total"),
        Label(name="forces", unit="eV/Å", key="forces", note="dimers, H removal and normal modes have none"),
    ),
    level="PBE/def2-SVP (ORCA)",
    licence="MIT",
    citations=(BATATIA_2022,),
    homepage="https://github.com/davkovacs/BOTNet-datasets",
    files=github_files(
        REPOSITORY,
        COMMIT,
        """
train.xyz 1115876 a26a16d8910581fa321fedc3bd3dfe31f2460e8cbfdc7a8f65243f4fd7250dd0
test_MD.xyz 1110863 b8726933d5b9083989d8e3cc7013c18e0950cf0cbc6f6cd570fdb9759001031c
train_eth_meth.xyz 1330730 2aea243261f05b7d556cca37d73de335a98573d198441f32dc6f835cd948e3a0
test_eth_meth.xyz 1209446 e9109584eb66d2ffe7509dd792c436e4b54bed2583a4de555bda9b2cd4799adf
test_dimers.xyz 110276 6beaf368c2caed6493a39c643438317246926675f14b188b7a2dcbd7868f7342
test_H_removal.xyz 38519 8d9f13272eb1c7570edaf6afc31e6f8670df38c41b82611504878576708b1a1c
test_norm_mode_874.xyz 24180 13f363e0c141dc25af4d8f59668623a27e024c781a07a52f8565fc6bb0e58f99
test_norm_mode_3005.xyz 11769 9412f0ac3562ee3f307e823eae5f6a9b793e1805feea908f58c9d24a0068f6b0
isolated_atoms.xyz 608 a2a662390f31ad623ce493038e680bc34214f88d4432566bf8fbd0761be57583
""",
        below="dataset_ethanol",
    ),
    kinds=("extxyz",),
    notes=("20 of the training frames are also in the training file of rmd17's ethanol, split 01",),
    sources=("the repository at this commit",),
)
