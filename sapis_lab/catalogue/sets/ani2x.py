"""ANI-2x."""

from sapis_lab.catalogue._base import Citation, Label, OfficialFile, PublicSet

SET = PublicSet(
    title="ANI-2x",
    holds="about 9.6 million conformers of organic molecules (H, C, N, O, F, S, Cl)",
    labels=(
        Label(name="energy", unit="Hartree", key="energies", note="total"),
        Label(name="forces", unit="Hartree/Å", key="forces"),
        Label(name="positions", unit="Å", key="coordinates"),
    ),
    level="ωB97X/6-31G(d)",
    licence="CC-BY 4.0",
    citations=(
        Citation(
            key="devereux2020extending",
            authors=(
                "Devereux, Christian",
                "Smith, Justin S.",
                "Huddleston, Kate K.",
                "Barros, Kipton",
                "Zubatyuk, Roman",
                "Isayev, Olexandr",
                "Roitberg, Adrian E.",
            ),
            title=(
                "Extending the Applicability of the ANI Deep Learning Molecular Potential to Sulfur "
                "and Halogens"
            ),
            journal="Journal of Chemical Theory and Computation",
            volume="16",
            pages="4192–4202",
            year=2020,
            doi="10.1021/acs.jctc.0c00121",
        ),
    ),
    homepage="https://doi.org/10.5281/zenodo.10108942",
    data_doi="10.5281/zenodo.10108942",
    files=(
        OfficialFile(
            part="ANI-2x-wB97X-631Gd.tar.gz",
            url="https://zenodo.org/records/10108942/files/ANI-2x-wB97X-631Gd.tar.gz",
            path="ANI-2x-wB97X-631Gd.tar.gz",
            about_bytes=3.7e9,
            md5="cb1d9effb3d07fc1cc6ced7cd0b1e1f2",
            unpack=True,
            gives=("final_h5/ANI-2x-wB97X-631Gd.h5",),
            about="grouped by the number of atoms",
        ),
    ),
    sources=("modelforge (address, md5)",),
)
