"""3BPA."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet, github, github_files

REPOSITORY, COMMIT = "davkovacs/BOTNet-datasets", "29e6d467317e4b5967b7ea5cbee54de953fa0d45"


SET = PublicSet(
    name="3bpa",
    title="3BPA, 3-(benzyloxy)pyridin-2-amine",
    holds=(
        "a drug-like molecule of 27 atoms (H, C, N, O): 500 frames at 300 K, 500 at 300, 600 and 1200 K; "
        "test files"
    ),
    labels=(
        Label(name="energy", unit="eV", key="energy", note="total"),
        Label(name="forces", unit="eV/Å", key="forces"),
    ),
    level="ωB97X/6-31G(d) (ORCA)",
    licence="MIT",
    citations=(
        Citation(
            key="kovacs2021linear",
            authors=(
                "Kovács, Dávid Péter",
                "van der Oord, Cas",
                "Kucera, Jiri",
                "Allen, Alice E. A.",
                "Cole, Daniel J.",
                "Ortner, Christoph",
                "Csányi, Gábor",
            ),
            title="Linear Atomic Cluster Expansion Force Fields for Organic Molecules: Beyond RMSE",
            journal="Journal of Chemical Theory and Computation",
            volume="17",
            pages="7696–7711",
            year=2021,
            doi="10.1021/acs.jctc.1c00647",
        ),
    ),
    homepage="https://github.com/davkovacs/BOTNet-datasets",
    files=(
        *github_files(
            REPOSITORY,
            COMMIT,
            """
train_300K.xyz 1504880 d109971fab90e2231ad931a83eb704c8d940f5c7d7a8de27fe3b84ea18634c0a
train_mixedT.xyz 1504818 bc108532964b2ed259eaaabf82e5dfaffa5bda9ac384fc2afabcce192a49250b
iso_atoms.xyz 504 e12a2465a2612bf38fd5dabdf64d4b57fc58ce9610a858c54ea1142d517c053f
""",
            below="dataset_3BPA",
        ),
        OfficialFile(
            part="tests",
            url=github(REPOSITORY, COMMIT, "dataset_3BPA.tar.gz"),
            path="dataset_3BPA.tar.gz",
            unpack=True,
            drop="dataset_3BPA",
            gives=("test_300K.xyz", "test_600K.xyz", "test_1200K.xyz"),
            about="everything, with the test files at 300, 600 and 1200 K and along dihedral angles",
            asked=True,
        ),
    ),
    kinds=("extxyz",),
    notes=("train_300K and train_mixedT share 31 frames",),
    sources=("the repository at this commit",),
)
