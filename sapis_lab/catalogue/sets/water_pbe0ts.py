"""Liquid water of the Deep Potential papers."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet, github_files

SET = PublicSet(
    title="Liquid water, PBE0+TS (DeePMD-kit's example)",
    holds="400 frames of 64 molecules (192 atoms) in a periodic cell at 300 K",
    labels=(
        Label(name="energy", unit="eV", key="energy.npy", note="total, in float32: steps of 2 meV a cell"),
        Label(name="forces", unit="eV/Å", key="force.npy"),
    ),
    level="PBE0+TS",
    licence="LGPL-3.0 (of the repository)",
    citations=(
        Citation(
            key="zhang2018deep",
            authors=("Zhang, Linfeng", "Han, Jiequn", "Wang, Han", "Car, Roberto", "E, Weinan"),
            title=(
                "Deep Potential Molecular Dynamics: A Scalable Model with the Accuracy of Quantum Mechanics"
            ),
            journal="Physical Review Letters",
            volume="120",
            pages="143001",
            year=2018,
            doi="10.1103/PhysRevLett.120.143001",
            arxiv="1707.09571",
        ),
    ),
    homepage="https://github.com/deepmodeling/deepmd-kit",
    files=github_files(
        "deepmodeling/deepmd-kit",
        "bc902daf747d93c5d7314338d287fd2dd0a7e32c",
        """
data_0/set.000/box.npy 3008 88376dc931e272a3569cabcab0f1ee4320168c73ee183ae60f7086b473fc719d
data_0/set.000/coord.npy 184448 58554d0ef240b54a242a8163e112d673872f5be5198c86c4eb8d5f39602ff645
data_0/set.000/energy.npy 448 920c4628018c12a4d38c22aef7f41ca483a02747319a42dd4e4f703e2a9f70c8
data_0/set.000/force.npy 184448 fae9be94125902c089720416a4cea521380a415709ead1f9134b7f64f46f1e58
data_0/type.raw 384 c0287bfae960bdddafa96841b59c29ac9b7548ddac0b5bebd30fb502563d0507
data_0/type_map.raw 4 2af2202bdb95741681b308b05c1dae7837141fe32b10d14db2a4c0ea9103e55b
data_1/set.000/box.npy 3008 88376dc931e272a3569cabcab0f1ee4320168c73ee183ae60f7086b473fc719d
data_1/set.000/coord.npy 184448 b9cf07c179a0f975a3b8607f439602e9a78b9bec3b02aa8afe812d716563f380
data_1/set.000/energy.npy 448 d3b407e3b67f953fe496a62e1f7dc84d07a8bfcfb748bfaafbca435809012b93
data_1/set.000/force.npy 184448 7a3099c380a57379574e5b854f43589e736b785d6f747c68d093a45b3f85b542
data_1/set.001/box.npy 3008 88376dc931e272a3569cabcab0f1ee4320168c73ee183ae60f7086b473fc719d
data_1/set.001/coord.npy 184448 f4581f0f4aedb910b8580157a9dca622c5cd3b71428f5924bdeed0192ab50dd2
data_1/set.001/energy.npy 448 d4634357a81940e5aca110cd5285b3b72503f4ae13bbfffbe5791c145748a4bf
data_1/set.001/force.npy 184448 19313e524e1900eaf721ec7be9f2a48b854301aefc884f6ca4815824aa4b6a77
data_1/type.raw 384 c0287bfae960bdddafa96841b59c29ac9b7548ddac0b5bebd30fb502563d0507
data_1/type_map.raw 4 2af2202bdb95741681b308b05c1dae7837141fe32b10d14db2a4c0ea9103e55b
data_2/set.000/box.npy 3008 88376dc931e272a3569cabcab0f1ee4320168c73ee183ae60f7086b473fc719d
data_2/set.000/coord.npy 184448 c9fd13c05992f98efe1d78ae0b70f0565820aceeaf0d25f17b02a0f29a0b84c8
data_2/set.000/energy.npy 448 a38b8cd8e897ded6ac3a6d88559358c634575bede2ae930bc2557b1047059b49
data_2/set.000/force.npy 184448 fda708ae95c73edca449709c2adfdf494acc6379323d92f865b1698c3830634f
data_2/type.raw 384 c0287bfae960bdddafa96841b59c29ac9b7548ddac0b5bebd30fb502563d0507
data_2/type_map.raw 4 2af2202bdb95741681b308b05c1dae7837141fe32b10d14db2a4c0ea9103e55b
data_3/set.000/box.npy 3008 88376dc931e272a3569cabcab0f1ee4320168c73ee183ae60f7086b473fc719d
data_3/set.000/coord.npy 184448 f9169bb378e0a4641c65171ccedd47d7b3ac115bc8e1ac8c72be1ce81959e793
data_3/set.000/energy.npy 448 8e7289bd03566f737f998e26fcdc3e838482e7bb80356939567b3a920d23f1c8
data_3/set.000/force.npy 184448 7abe876297cd5c989289760435c2258c3ad7be94bb6ed40640efbefb55b76a68
data_3/type.raw 384 c0287bfae960bdddafa96841b59c29ac9b7548ddac0b5bebd30fb502563d0507
data_3/type_map.raw 4 2af2202bdb95741681b308b05c1dae7837141fe32b10d14db2a4c0ea9103e55b
""",
        below="examples/water/data",
    ),
    kinds=("deepmd",),
    notes=("a sample of the set of the paper, which has more than 100,000 frames",),
    sources=("the repository at this commit",),
)
