"""MoleculeNet."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet, github_files

_ADDRESS = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets"
_OTHERS = ("Lipophilicity.csv", "HIV.csv", "bace.csv", "BBBP.csv", "tox21.csv.gz")

SET = PublicSet(
    title="MoleculeNet",
    holds=(
        "molecules as SMILES with measured properties: ESOL (1,128), FreeSolv (643 rows), lipophilicity, "
        "HIV, BACE, "
        "BBBP, Tox21"
    ),
    labels=(
        Label(
            name="solubility",
            unit="log10(mol/l)",
            key="measured log solubility in mols per litre",
            note="ESOL",
        ),
        Label(
            name="hydration free energy", unit="kcal/mol", key="expt", note="FreeSolv; calc is a computed one"
        ),
    ),
    brief="properties",
    level="measured",
    licence="MIT (DeepChem's files)",
    citations=(
        Citation(
            key="wu2018moleculenet",
            authors=(
                "Wu, Zhenqin",
                "Ramsundar, Bharath",
                "Feinberg, Evan N.",
                "Gomes, Joseph",
                "Geniesse, Caleb",
                "Pappu, Aneesh S.",
                "Leswing, Karl",
                "Pande, Vijay",
            ),
            title="MoleculeNet: a benchmark for molecular machine learning",
            journal="Chemical Science",
            volume="9",
            pages="513–530",
            year=2018,
            doi="10.1039/C7SC02664A",
            arxiv="1703.00564",
        ),
    ),
    homepage="https://moleculenet.org",
    files=(
        *github_files(
            "deepchem/deepchem",
            "fbe3b911a94a6eb8c84c1a9e7ac67a472c49ea80",
            """
delaney-processed.csv 96699 8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189
""",
            below="datasets",
        ),
        *github_files(
            "deepchem/deepchem",
            "5244ca0b0e7d0f6daac262d6b616aded663c4f9d",
            """
SAMPL.csv 32114 ba0b942165a7dd209568395616379b51331b5b83f1a7f511548b575c934458c0
""",
            below="examples/sampl",
        ),
        *(OfficialFile(part=name, url=f"{_ADDRESS}/{name}", path=name, asked=True) for name in _OTHERS),
    ),
    notes=("no structures in space and no forces: SMILES alone",),
    sources=("the repository of DeepChem", "torch_geometric (addresses)"),
)
