"""Alanine dipeptide."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet, github_files

_ADDRESS = "http://ftp.imp.fu-berlin.de/pub/cmb-data"

SET = PublicSet(
    title="Alanine dipeptide, trajectories",
    holds=(
        "a peptide of 22 atoms at 300 K: 4 of 10 trajectories of 10 ns in implicit solvent (msmbuilder), "
        "3 of 250 ns and "
        "10^6 frames with forces in explicit water (mdshare)"
    ),
    labels=(
        Label(name="positions", unit="Å", key="of the DCD files", note="no energies, no forces"),
        Label(
            name="forces",
            unit="not known",
            key="of 1Mx1ps-with-force",
            note="of the force field in water: mean forces, not labels of a potential of the molecule",
        ),
    ),
    brief="positions, F",
    level="AMBER99SB-ILDN; OBC (msmbuilder) or TIP3P (mdshare)",
    licence="CC-BY 4.0 (mdshare), CC-BY (msmbuilder)",
    citations=(
        Citation(
            key="nuske2017markov",
            authors=(
                "Nüske, Feliks",
                "Wu, Hao",
                "Prinz, Jan-Hendrik",
                "Wehmeyer, Christoph",
                "Clementi, Cecilia",
                "Noé, Frank",
            ),
            title=(
                "Markov state models from short non-equilibrium simulations: Analysis and correction "
                "of estimation bias"
            ),
            journal="The Journal of Chemical Physics",
            volume="146",
            pages="094104",
            year=2017,
            doi="10.1063/1.4976518",
            arxiv="1701.01665",
        ),
    ),
    homepage="https://markovmodel.github.io/mdshare/ALA2/",
    data_doi="10.6084/m9.figshare.1026131",
    files=(
        *github_files(
            "msmbuilder/msmb_data",
            "612f171dcef9b322f11dfa6895a80fbd92f23020",
            """
trajectory-0.dcd 2879988 fe33909d3a15dbbc8888618a9bd8b3c26163bf3648b8c8cbc1b5fb851250fd90
trajectory-1.dcd 2880276 72af8fbb0ca2a349f956e66e92f93c86e5c29e109d522e4de0e3128dbc78a59b
trajectory-2.dcd 2880276 89ad7900b840c67d973058c7461cedaedff9bc6898c9aa58e687d3174ae2d258
trajectory-3.dcd 2880276 7b6ecc1c710c58277b04ebed38cd06e453df8b7ffe2512eaa3b6d9debd43e7be
ala2.pdb 1749 39148a94171703ab1e83bfbf41d75a0d19db0f52aaedeaec99ec976caa97b16f
""",
            below="msmb_data/alanine_dipeptide",
        ),
        OfficialFile(
            part="dihedrals",
            url=f"{_ADDRESS}/alanine-dipeptide-3x250ns-backbone-dihedrals.npz",
            path="alanine-dipeptide-3x250ns-backbone-dihedrals.npz",
            n_bytes=6_000_544,
            md5="3fa7c72ba512213a3860f9691602cdc7",
            asked=True,
        ),
        OfficialFile(
            part="forces",
            url=f"{_ADDRESS}/alanine-dipeptide-1Mx1ps-with-force.npz",
            path="alanine-dipeptide-1Mx1ps-with-force.npz",
            n_bytes=463_525_559,
            md5="c35a55fb5e5cec0d49e4275d62493ab9",
            asked=True,
        ),
    ),
    notes=("100 ns without a bias hold almost nothing of phi > 0: no reference for free energies there",),
    sources=("the repository of msmbuilder's data at this commit", "mdshare (addresses, sizes, md5)"),
)
