"""The protein-ligand benchmark of the Open Force Field initiative."""

from sapis_lab.catalogue._base import Citation, Label, PublicSet, github_files

SET = PublicSet(
    title="Protein-ligand benchmark",
    holds="260 ligands of ten proteins: measured affinities, docked poses, a structure of each protein",
    labels=(
        Label(
            name="affinity",
            unit="nM, uM or others, as each entry says",
            key="measurement of ligands.yml",
            note="Ki, IC50 and others: compare within a protein alone",
        ),
    ),
    level="measured",
    licence="CC-BY 4.0",
    citations=(
        Citation(
            key="hahn2022best",
            authors=("Hahn, David F.", "Bayly, Christopher I.", "Boby, Melissa L.", "others"),
            title=(
                "Best practices for constructing, preparing, and evaluating protein-ligand binding "
                "affinity benchmarks"
            ),
            journal="Living Journal of Computational Molecular Science",
            volume="4",
            pages="1497",
            year=2022,
            doi="10.33011/livecoms.4.1.1497",
            arxiv="2105.06222",
        ),
    ),
    homepage="https://github.com/openforcefield/protein-ligand-benchmark",
    folder="protein_ligand_benchmark",
    files=github_files(
        "openforcefield/protein-ligand-benchmark",
        "fd88824f9114244f95a14b485e6d6c96c1de716d",
        """
cdk2/00_data/ligands.yml 3641 c04762ef501289a355f28cf6d082115af35abaf5af48785fd89eb41b45decf4d
cdk2/00_data/target.yml 370 624c2513fef48d0bcdfbb44c781d909448619167188dc2a49ff1323e1bfc78e8
cdk2/01_protein/crd/protein.pdb 757848 15d1e509d7951ca45ea266d51a627d5f452dcf0bb5bd48751ae57eb29e28ab69
cdk2/02_ligands/ligands.sdf 53255 b0083418f683d38fb9353f58eb1fcd8fc8208611888093f23295fa120135c7da
cdk8/00_data/ligands.yml 11155 a1e437469bb1385c71468ceef50c1115ace08ccaa65ae5fcf0f526ceb7125244
cdk8/00_data/target.yml 331 c0bde1e165925b366bbb414a08d51e891c6cfcf8b117370b99fed845d76081fb
cdk8/01_protein/crd/protein.pdb 875630 b058774526a19775d8f438b14e9d6da331b6de74e0ef9e96db575f6c0bb067b2
cdk8/02_ligands/ligands.sdf 166564 745e3c244cb38770ec1ce81b57ab88b92b65b3f5dd351495b36fc43692f8c708
cmet/00_data/ligands.yml 1955 20fc4d9a813aada4c8a392083cea994a8ffe973400c632cfab2d2c7bda3d0a4b
cmet/00_data/target.yml 356 661b65d396f52093b4c14e8335b9f9c4cd6f9dc77e81da36e9ec7b89a194715d
cmet/01_protein/crd/protein.pdb 385278 155ec32941a9082dbdbbfde460ff97c88d4fe7e100e9a9577edb5a9e7b6467ae
cmet/02_ligands/ligands.sdf 27128 b57cd55063680f4c377a58f28f64b5d4ff17731633e7732fa7f4a30ba945b882
eg5/00_data/ligands.yml 11490 9a8a174b3d0a032133f37e946228d894f63924616ea7f5b2aec8161f8d36d202
eg5/00_data/target.yml 412 954ce092dbbb4fcc181cb94a3df96d4bbe4641f34cfd405e2cd96e4d6d894f7d
eg5/01_protein/crd/protein.pdb 461996 f2964a785c922502dc86fb4e2e5295d32d41d5b68b8c3246e989de5234c3fd0f
eg5/02_ligands/ligands.sdf 162554 5dc44e9da3a089b7411ddd0fafe8a94e3d54506cb622e161c946ace9bf6be1e1
hif2a/00_data/ligands.yml 13928 e4c6a12894467ff9cecab06e53a4e23db3183bcaff68c7cdfb6402c7b8b26a34
hif2a/00_data/target.yml 299 1a93f6bc30bd250b4e34b77db05948bf5acf65931a7cb8e4af18281ddc0b62cd
hif2a/01_protein/crd/protein.pdb 300915 5bbf520e7c102a65cc7ba0253fd66f43562f77284c82b3b9613e997b7ac76c93
hif2a/02_ligands/ligands.sdf 165971 9c86778e76a2c777fb96ad394851df86d315370d9f1f2089ae0082a8df44ceaa
p38/00_data/ligands.yml 10896 b9199a59e816fd91c59dbd991b1e1a6c7713256d5cd7c03cac4962bff39d3a4f
p38/00_data/target.yml 447 a96e50e492536b92ab01133ee95313cb0d14466c9b42e62cdc6ba4a767be6515
p38/01_protein/crd/protein.pdb 473736 3f0bf718644e7c29f5200cd3def4240ac25ef5fb1948b2e64deb5015d8a45aa4
p38/02_ligands/ligands.sdf 156927 98c9aa7bdded79be347b0b0aa2ac3127b39c2dbb4e8019c019fe2afb173045f6
pde2/00_data/ligands.yml 4902 e06ade6ba85fc16274e19a8d71a28c12ea4e68ffe195f607015af12da22ca838
pde2/00_data/target.yml 379 36facc39eff96a606f17fb9b81b4d2d192adde72a1cb138abb4759d746ed9cd5
pde2/01_protein/crd/protein.pdb 463437 3b7967c1717789215452cdf919520625602d5438a9d2a18620726b8b1b3a8ef0
pde2/02_ligands/ligands.sdf 123021 8811f344ee9557a8dfcf547efb800ded9af610f9c3fe30a40525b75d4008c7af
pfkfb3/00_data/ligands.yml 11388 ec861628b92a732fce0b4932dfd5b4787ed05a3633236712506597a28b063dc3
pfkfb3/00_data/target.yml 305 0cca31e075c9370c1cad33a2a14f16412956fd61889002f0d6fbb116c580a4b0
pfkfb3/01_protein/crd/protein.pdb 613640 4367710db0dbf284cc715ae9a8dd82d06bd77dcc3fb0885678e16632a2732dcc
pfkfb3/02_ligands/ligands.sdf 171927 3828e89972391f0dd5aeeeb158e3e96d79637a6a36a26b855d0337f7356a9604
shp2/00_data/ligands.yml 10319 e3f6bc4847d1cf66bfe292172c984974fec2b6468940a6ddc98b93fc655530b4
shp2/00_data/target.yml 328 55d3f43471e8f60a8fc9ed9b191a922f60645e77a79e753398f683d0bc13dfd3
shp2/01_protein/crd/protein.pdb 702936 d6759cbd135aaddaa658446064df4095d978d3681c014a0528b542d60b2c8770
shp2/02_ligands/ligands.sdf 121072 ee806fad2a79ab629514412f45e0880472aa0744357ea52cfc378a767603902e
syk/00_data/ligands.yml 17369 21a25695a3258404b7e4eb7887aa6259bf2a65ee688dbfbb11d54753e8a32e50
syk/00_data/target.yml 421 4a2c8d834632feb7c930c627c7633808503650aab2978302fd7e6c1e5a3aee96
syk/01_protein/crd/protein.pdb 374653 f6199d0c1818eb5bb24e164426789cf39cae7aa32c8ca2e98f5f44d299a6f82f
syk/02_ligands/ligands.sdf 257790 b32d82c60df7813d5c252bf2421613116af00021b6b853929dcbbec726419a54
""",
        below="data",
    ),
    also=("*/ligands.yml",),
    notes=("no energies and no forces",),
    sources=("the repository at this commit",),
)
