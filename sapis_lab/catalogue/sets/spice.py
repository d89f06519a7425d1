"""SPICE."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet

SET = PublicSet(
    title="SPICE",
    holds=(
        "about 2.0 million conformations of drug-like molecules, peptides, ions and clusters in version "
        "2, 1.1 in 1"
    ),
    labels=(
        Label(name="energy", unit="Hartree", key="dft_total_energy", note="total"),
        Label(
            name="gradient",
            unit="Hartree/Bohr",
            key="dft_total_gradient",
            note="of the opposite sign of a force",
        ),
        Label(name="positions", unit="Bohr", key="conformations"),
        Label(name="charges", unit="e", key="mbis_charges"),
    ),
    level="ωB97M-D3(BJ)/def2-TZVPPD",
    licence="CC0 1.0",
    citations=(
        Citation(
            key="eastman2023spice",
            authors=("Eastman, Peter", "Behara, Pavan Kumar", "Dotson, David L.", "others"),
            title=(
                "SPICE, A Dataset of Drug-like Molecules and Peptides for Training Machine Learning "
                "Potentials"
            ),
            journal="Scientific Data",
            volume="10",
            pages="11",
            year=2023,
            doi="10.1038/s41597-022-01882-6",
            arxiv="2209.10702",
        ),
        Citation(
            key="eastman2024nutmeg",
            authors=("Eastman, Peter", "Pritchard, Benjamin P.", "Chodera, John D.", "Markland, Thomas E."),
            title="Nutmeg and SPICE: Models and Data for Biomolecular Machine Learning",
            journal="Journal of Chemical Theory and Computation",
            volume="20",
            pages="8583–8593",
            year=2024,
            doi="10.1021/acs.jctc.4c00794",
        ),
    ),
    homepage="https://github.com/openmm/spice-dataset",
    data_doi="10.5281/zenodo.10975225",
    files=(
        OfficialFile(
            part="2.0.1",
            url="https://zenodo.org/records/10975225/files/SPICE-2.0.1.hdf5",
            path="SPICE-2.0.1.hdf5",
            n_bytes=37_479_271_148,
            md5="bfba2224b6540e1390a579569b475510",
            asked=True,
        ),
        OfficialFile(
            part="1.1.4",
            url="https://zenodo.org/records/8222043/files/SPICE-1.1.4.hdf5",
            path="SPICE-1.1.4.hdf5",
            asked=True,
        ),
    ),
    sources=("the deposits (address, size, md5)", "modelforge"),
)
