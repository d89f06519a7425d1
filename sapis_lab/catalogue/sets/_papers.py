"""Papers that several sets cite."""

from sapis_lab.catalogue._base import Citation

CHMIELA_2017 = Citation(
    key="chmiela2017",
    authors=(
        "Chmiela, Stefan",
        "Tkatchenko, Alexandre",
        "Sauceda, Huziel E.",
        "Poltavsky, Igor",
        "Schütt, Kristof T.",
        "Müller, Klaus-Robert",
    ),
    title="Machine learning of accurate energy-conserving molecular force fields",
    journal="Science Advances",
    volume="3",
    pages="e1603015",
    year=2017,
    doi="10.1126/sciadv.1603015",
    arxiv="1611.04678",
)
BATATIA_2022 = Citation(
    key="batatia2022design",
    authors=(
        "Batatia, Ilyes",
        "Batzner, Simon",
        "Kovács, Dávid Péter",
        "Musaelian, Albert",
        "Simm, Gregor N. C.",
        "Drautz, Ralf",
        "Ortner, Christoph",
        "Kozinsky, Boris",
        "Csányi, Gábor",
    ),
    title="The Design Space of E(3)-Equivariant Atom-Centered Interatomic Potentials",
    year=2022,
    arxiv="2205.06643",
)
SMITH_2020 = Citation(
    key="smith2020ani1ccx",
    authors=(
        "Smith, Justin S.",
        "Zubatyuk, Roman",
        "Nebgen, Benjamin",
        "Lubbers, Nicholas",
        "Barros, Kipton",
        "Roitberg, Adrian E.",
        "Isayev, Olexandr",
        "Tretiak, Sergei",
    ),
    title=(
        "The ANI-1ccx and ANI-1x data sets, coupled-cluster and density functional theory properties for "
        "molecules"
    ),
    journal="Scientific Data",
    volume="7",
    pages="134",
    year=2020,
    doi="10.1038/s41597-020-0473-z",
)
SMITH_2018 = Citation(
    key="smith2018less",
    authors=(
        "Smith, Justin S.",
        "Nebgen, Ben",
        "Lubbers, Nicholas",
        "Isayev, Olexandr",
        "Roitberg, Adrian E.",
    ),
    title="Less is more: Sampling chemical space with active learning",
    journal="The Journal of Chemical Physics",
    volume="148",
    pages="241733",
    year=2018,
    doi="10.1063/1.5023802",
    arxiv="1801.09319",
)
CHANUSSOT_2021 = Citation(
    key="chanussot2021oc20",
    authors=("Chanussot, Lowik", "Das, Abhishek", "Goyal, Siddharth", "others"),
    title="Open Catalyst 2020 (OC20) Dataset and Community Challenges",
    journal="ACS Catalysis",
    volume="11",
    pages="6059–6072",
    year=2021,
    doi="10.1021/acscatal.0c04525",
    arxiv="2010.09990",
)
JAIN_2013 = Citation(
    key="jain2013materials",
    authors=("Jain, Anubhav", "Ong, Shyue Ping", "Hautier, Geoffroy", "others"),
    title=(
        "Commentary: The Materials Project: A materials genome approach to accelerating materials innovation"
    ),
    journal="APL Materials",
    volume="1",
    pages="011002",
    year=2013,
    doi="10.1063/1.4812323",
)
DUNN_2020 = Citation(
    key="dunn2020matbench",
    authors=("Dunn, Alexander", "Wang, Qi", "Ganose, Alex", "Dopp, Daniel", "Jain, Anubhav"),
    title=(
        "Benchmarking materials property prediction methods: the Matbench test set and Automatminer "
        "reference "
        "algorithm"
    ),
    journal="npj Computational Materials",
    volume="6",
    pages="138",
    year=2020,
    doi="10.1038/s41524-020-00406-3",
)
ZUO_2020 = Citation(
    key="zuo2020performance",
    authors=("Zuo, Yunxing", "Chen, Chi", "Li, Xiangguo", "others"),
    title="Performance and Cost Assessment of Machine Learning Interatomic Potentials",
    journal="The Journal of Physical Chemistry A",
    volume="124",
    pages="731–745",
    year=2020,
    doi="10.1021/acs.jpca.9b08723",
    arxiv="1906.08888",
)
