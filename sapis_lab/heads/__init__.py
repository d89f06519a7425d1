"""Readouts of properties from the features of the atoms, one kind a file.

A head is a small network behind the trunk of any model. It reads the invariant features of the atoms, and the
displacements where its output has a direction, so that a property is predicted with the symmetry that its
target declares: scalars do not change when a frame is turned, vectors and matrices turn with it.
"""

from sapis_lab.heads._base import Head, HeadConfig, Perceptron, apply, attach, head_of

__all__ = ["Head", "HeadConfig", "Perceptron", "apply", "attach", "head_of"]
