"""What holds for every kind of a public data set."""

import inspect

import pytest

from sapis_lab.config import kind_class, kinds
from sapis_lab.data._public import PublicData

KINDS = [kind for kind in kinds("data") if issubclass(kind_class("data", kind), PublicData)]
NEEDED = {"md22": {"molecule": "DHA"}}


def test_the_public_sets_have_kinds():
    wanted = {"acac", "ani1x", "ani2x", "comp6", "ethanol_botnet", "md17", "md17_ccsd", "md22"}
    assert wanted | {"oc20_s2ef", "qm9", "spice", "threebpa"} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_names_its_level_its_source_and_a_missing_file(kind, tmp_path):
    cls = kind_class("data", kind)
    config = cls(**NEEDED.get(kind, {}), root=tmp_path)
    assert cls.catalogue and cls.place
    with pytest.raises(ValueError, match=rf"{tmp_path}/{cls.place}/.*SAPIS_DATA"):
        config.info(cutoff=5.0)
    assert "et al." in (inspect.getmodule(cls).__doc__ or "")
    assert not {"root", "folder"} & set(config.identity())


def test_places_and_names_are_those_of_the_catalogue():
    catalogue = pytest.importorskip("sapis_lab.catalogue", reason="there is no catalogue of public data")
    for kind in KINDS:
        cls = kind_class("data", kind)
        assert catalogue.public_set(cls.catalogue).place == cls.place, kind
