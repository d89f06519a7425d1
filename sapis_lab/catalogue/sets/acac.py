"""Acetylacetone."""

from sapis_lab.catalogue._base import Label, PublicSet, github_files
from sapis_lab.catalogue.sets._papers import BATATIA_2022

REPOSITORY, COMMIT = "davkovacs/BOTNet-datasets", "29e6d467317e4b5967b7ea5cbee54de953fa0d45"


SET = PublicSet(
    title="Acetylacetone (AcAc)",
    holds=(
        "a molecule of 15 atoms (H, C, O) at 300 and 600 K: 500 training, 650 test frames each; 45 along "
        "a dihedral "
        "angle, 15 along a proton transfer"
    ),
    labels=(
        Label(name="energy", unit="eV", key="energy", note="total"),
        Label(name="forces", unit="eV/Å", key="forces", note="test_dihedral and test_H_transfer have none"),
    ),
    level="PBE+D3/def2-SVP (ORCA)",
    licence="MIT",
    citations=(BATATIA_2022,),
    homepage="https://github.com/davkovacs/BOTNet-datasets",
    files=github_files(
        REPOSITORY,
        COMMIT,
        """
train_300K.xyz 880100 8f5706d6902360555a5be59395612d2afc3489a75688388a58e7275fdad68af3
train_600K.xyz 880112 180c2538508f7810a623c279426f44953ee7cfb2af77e48ea3986ff97645a71c
test_MD_300K.xyz 1144100 2291f3186a3cc6a5e05e92952c84a9237ca53f862d78fd3316a769360719ec43
test_MD_600K.xyz 1144153 d5a5bba154ec43f915eb7529f86ec3af60e6f911743859daba030181a0378ff7
test_dihedral.xyz 43974 0c2246a593579de5a4450698d5f4ba5802b095824b7f211aa5889339967c6809
test_H_transfer.xyz 14306 ea4d76c79cf4cfccd2f93eaf755172b0b648886c4907eb0f82dff07a77530743
isolated_atoms.xyz 455 b74f321b453374621b447d65c60979f70df1b7182c8ee0215388b2c574f33823
""",
        below="dataset_acac",
    ),
    kinds=("extxyz",),
    sources=("the repository at this commit",),
)
