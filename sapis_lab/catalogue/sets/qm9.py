"""QM9."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet, github_files

_ADDRESS = "https://springernature.figshare.com/ndownloader/files"

SET = PublicSet(
    title="QM9",
    holds=(
        "133,885 molecules of up to 9 heavy atoms (H, C, N, O, F) at their minima; 130,831 without the "
        "3,054 that "
        "failed a check of their geometry"
    ),
    labels=(
        Label(
            name="energy",
            unit="Hartree",
            key="U0",
            note="at 0 K, with zpve; U and H at 298.15 K, free energy G",
        ),
        Label(name="gap", unit="Hartree", key="gap", note="with homo and lumo"),
        Label(name="dipole moment", unit="Debye", key="mu", note="its norm"),
        Label(name="polarisability", unit="Bohr³", key="alpha", note="isotropic"),
        Label(name="<R²>", unit="Bohr²", key="r2"),
        Label(name="zero-point energy", unit="Hartree", key="zpve"),
        Label(name="heat capacity", unit="cal/mol/K", key="Cv"),
        Label(name="rotational constants", unit="GHz", key="A B C"),
        Label(name="charges", unit="e", key="last column of the atoms", note="Mulliken"),
    ),
    brief="15 properties",
    level="B3LYP/6-31G(2df,p)",
    licence="CC0 1.0",
    citations=(
        Citation(
            key="ramakrishnan2014quantum",
            authors=(
                "Ramakrishnan, Raghunathan",
                "Dral, Pavlo O.",
                "Rupp, Matthias",
                "von Lilienfeld, O. Anatole",
            ),
            title="Quantum chemistry structures and properties of 134 kilo molecules",
            journal="Scientific Data",
            volume="1",
            pages="140022",
            year=2014,
            doi="10.1038/sdata.2014.22",
        ),
    ),
    homepage="https://doi.org/10.6084/m9.figshare.c.978904",
    data_doi="10.6084/m9.figshare.c.978904",
    files=(
        OfficialFile(
            part="dsgdb9nsd.xyz.tar.bz2",
            url=f"{_ADDRESS}/3195389",
            path="dsgdb9nsd.xyz.tar.bz2",
            n_bytes=86_144_227,
            md5="ad1ebd51ee7f5b3a6e32e974e5d54012",
            sha256="3a63848ac806",
            about="all molecules, one file each; stays packed",
        ),
        OfficialFile(
            part="uncharacterized.txt",
            url=f"{_ADDRESS}/3195404",
            path="uncharacterized.txt",
            n_bytes=486_752,
            md5="a361887bacb427b8a0ce7903d92a53b4",
            about="numbers of the 3,054 molecules to leave out",
        ),
        OfficialFile(
            part="atomref.txt",
            url=f"{_ADDRESS}/3195395",
            path="atomref.txt",
            n_bytes=964,
            md5="2d30b2df8329d8fd805c0a4d158a0a0f",
            about="energies of the free atoms",
        ),
        *github_files(
            "lab-cosmo/metatrain",
            "cc84568c57a1abb0200abdd01a7a0b8ae280d402",
            """
qm9_reduced_100.xyz 77683 d6f0e6d80a9152093d438fe980103079301be76da522c9316a0052e5153e59c7
""",
            below="docs/static/qm9",
            asked=True,
        ),
    ),
    also=("raw/dsgdb9nsd_*.xyz", "qm9_reduced_100.xyz"),
    kinds=("extxyz",),
    notes=(
        "some numbers of the original files are written as 1.2*^-6",
        "there are no forces: all structures are minima",
        "qm9_reduced_100.xyz is not official: the first 100 molecules as extended XYZ, in the "
        "repository of metatrain",
    ),
    sources=("the deposit (sizes, md5)", "load-atoms (sha256)"),
)
