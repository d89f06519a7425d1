"""Forms in which a trained potential is used by other programs; one module per form.

A form says which potentials it can take (`check`) and writes its files (`write`); `export` puts the model
card beside them and gives the folder its name in one step, so that nobody finds half of one.
"""

from sapis_lab.exports._base import Export
from sapis_lab.exports._card import card_of, card_text, data_of
from sapis_lab.exports._folder import export, write_potential
from sapis_lab.exports._patch import Patch, patched

__all__ = ["Export", "Patch", "card_of", "card_text", "data_of", "export", "patched", "write_potential"]
