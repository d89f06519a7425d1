"""PDBbind."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet

SET = PublicSet(
    title="PDBbind",
    holds="protein-ligand complexes with measured affinities, 19,443 in version 2020",
    labels=(Label(name="affinity", unit="-log10(Kd or Ki in mol/l)", key="-logKd/Ki"),),
    level="measured",
    licence="own terms; no redistribution",
    citations=(
        Citation(
            key="wang2004pdbbind",
            authors=("Wang, Renxiao", "Fang, Xueliang", "Lu, Yipin", "Wang, Shaomeng"),
            title=(
                "The PDBbind Database: Collection of Binding Affinities for Protein-Ligand Complexes "
                "with Known "
                "Three-Dimensional Structures"
            ),
            journal="Journal of Medicinal Chemistry",
            volume="47",
            pages="2977–2980",
            year=2004,
            doi="10.1021/jm030580l",
        ),
    ),
    homepage="http://www.pdbbind.org.cn",
    not_fetched=(
        "PDBbind wants a registration and may not be given on: register on its homepage, download it "
        "there, and unpack "
        "it into $SAPIS_DATA/pdbbind/ (CODE/CODE_protein.pdb, CODE/CODE_ligand.sdf, index/)"
    ),
    also=("*/*_protein.pdb", "*_protein*.pdb"),
    notes=("no energies and no forces",),
    sources=("the homepage",),
)
