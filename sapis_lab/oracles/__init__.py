"""Label sources: functions from a geometry to energy (eV) and forces (eV/Å); one module per kind, each an optional extra."""
