"""Chunks of OC20, structure to energy and forces (Chanussot et al., ACS Catal. 11 (2021) 6059): a folder of
pairs `0.extxyz.xz` and `0.txt`, or one `.extxyz.xz` with its `.txt` (itself perhaps compressed) beside it. eV
and Å.

A line of the text names the system, the frame of its relaxation, and the reference energy of surface and gas:
`random1234,frame56,-123.4`. Labels are energy (total), system, frame, reference_energy and adsorption_energy,
which is energy minus reference_energy; of atoms forces, tags (0 below the surface, 1 surface, 2 adsorbate)
and move_mask. Frames are counted through the chunks in the order of their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sapis_lab.formats._base import BROKEN, Block, Reading, Single, joined, open_text, picked
from sapis_lab.formats._xyz_text import XyzFrame, count_frames, numbers_of, read_extxyz

ENDINGS: tuple[str, ...] = ()
FIXED = {"energy_unit": "eV", "length_unit": "Angstrom"}

_CHUNK = re.compile(r"(\d+)\.extxyz(\.xz|\.gz)?")
_TEXTS = (".txt", ".txt.xz", ".txt.gz")


def is_one(path: Path) -> bool:
    """Whether it is a folder with a chunk and its text."""
    return path.is_dir() and any(_text_of(chunk) is not None for chunk in _chunks(path)[:1])


def count(path: Path) -> int:
    """Frames of all chunks."""
    return sum(count_frames(chunk) for chunk in _chunks(path))


def blocks(path: Path, reading: Reading) -> Iterator[Block]:
    """The frames of all chunks."""
    wanted = picked(_frames(path), reading, path, lambda: count(path))
    return joined(_single(frame, line, k, labels=reading.labels) for k, (frame, line) in wanted)


def _chunks(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [(int(match[1]), file) for file in path.iterdir() if (match := _CHUNK.fullmatch(file.name))]
    return [file for _, file in sorted(found)]


def _text_of(chunk: Path) -> Path | None:
    stem = chunk.name.partition(".extxyz")[0]
    return next((f for end in _TEXTS if (f := chunk.with_name(stem + end)).is_file()), None)


def _frames(path: Path) -> Iterator[tuple[XyzFrame, tuple[str, str]]]:
    """The frames, each with its line and the place of that."""
    chunks = _chunks(path)
    if not chunks:
        raise ValueError(f"{path}: no chunks, wanted files such as 0.extxyz.xz with 0.txt")
    for chunk in chunks:
        text = _text_of(chunk)
        if text is None:
            raise ValueError(
                f"{chunk}: no {chunk.name.partition('.extxyz')[0]}.txt beside it, which has the "
                "reference energies; copy it there"
            )
        lines = _lines(text)
        n = 0
        for frame in read_extxyz(chunk):
            if n == len(lines):
                raise ValueError(
                    f"{text}: {n} lines, wanted one for each frame of {chunk.name}, which has more"
                )
            yield frame, (lines[n], f"{text}, line {n + 1}")
            n += 1
        if n < len(lines):
            raise ValueError(
                f"{text}: {len(lines)} lines, wanted one for each of the {n} frames of {chunk.name}"
            )


def _lines(text: Path) -> list[str]:
    try:
        with open_text(text) as file:
            return file.read().splitlines()
    except BROKEN as error:
        raise ValueError(f"{text}: cannot be read ({error}); copy it again") from None


def _single(frame: XyzFrame, line: tuple[str, str], number: int, *, labels: bool) -> Single:
    words, place = line[0].split(","), line[1]
    if len(words) != 3:
        raise ValueError(f"{place}: {line[0][:80]!r}, wanted `system,frame,reference energy`")
    reference = numbers_of(words[2], (), f"{place}: the reference energy")
    added = {"system": words[0], "frame": words[1], "reference_energy": reference}
    if "energy" in frame.info:
        energy = numbers_of(frame.info["energy"], (), f"{place}: energy of its frame")
        added["adsorption_energy"] = energy - reference
    return Single(
        number,
        frame.species,
        frame.positions,
        frame.cell,
        frame.pbc,
        {**frame.info, **added},
        frame.columns if labels else {},
    )
