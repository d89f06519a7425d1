"""Our models beside peer codes: speed and accuracy at equal cost, in one harness.  Imports nothing: peers'
environments read it too."""
